import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { XosanError } from '../../core/errors.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { millis } from '../../core/units.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { type CloseReason, type ServerEvent } from '../../datapath/nbd-server/close-reason.ts'
import { type DurabilityMode } from '../../datapath/nbd-server/durability-policy.ts'
import { type OpenRequest } from '../../datapath/nbd-server/export.ts'
import { type NbdLimits } from '../../datapath/nbd-server/limits.ts'
import { type NbdListener, NbdServer } from '../../datapath/nbd-server/nbd-server.ts'
import { NbdClient, type NbdClientOptions } from '../../datapath/replica-remote/nbd-client.ts'
import { MemoryDevice } from './memory-device.ts'

export interface NbdRigOptions {
  readonly device?: BlockDevice
  readonly readOnly?: boolean
  readonly durability?: DurabilityMode
  readonly limits?: Partial<NbdLimits>
  readonly clock?: Clock
  /** Runs before an export is opened: delays by a promise, or refuses by throwing. */
  readonly opening?: (request: OpenRequest) => Promise<void> | void
  /** The only name there is; without it every name is taken. */
  readonly name?: string
}

const clock = createNodeClock()

/** A server with one export, listening on a unix socket and on a TCP port, for tests. */
export class NbdRig {
  readonly device: BlockDevice
  readonly server: NbdServer
  readonly directory: string
  readonly opened: OpenRequest[] = []
  readonly events: ServerEvent[] = []
  #unix: NbdListener | null = null
  #tcp: NbdListener | null = null
  #eventSeen: () => void = () => undefined

  private constructor(directory: string, options: NbdRigOptions) {
    this.directory = directory
    this.device = options.device ?? new MemoryDevice(64 * 1024 * 1024)
    const check = (name: string): void => {
      if (options.name !== undefined && name !== options.name)
        throw new XosanError('EXPORT_UNKNOWN', { name })
    }
    const readOnly = options.readOnly ?? false
    this.server = new NbdServer({
      clock: options.clock ?? clock,
      log: event => {
        this.events.push(event)
        this.#eventSeen()
      },
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      exports: {
        open: async request => {
          check(request.name)
          await options.opening?.(request)
          this.opened.push(request)
          return {
            device: this.device,
            readOnly,
            durability: options.durability ?? 'until-client-asks',
            closed: () => undefined,
          }
        },
        info: async name => {
          check(name)
          return { size: this.device.size, readOnly, capabilities: this.device.capabilities }
        },
        list: async () => [options.name ?? 'volume'],
      },
    })
  }

  static async start(options: NbdRigOptions = {}): Promise<NbdRig> {
    const rig = new NbdRig(await mkdtemp(join(tmpdir(), 'xosan-nbd-')), options)
    rig.#unix = await rig.server.listenUnix(rig.path)
    rig.#tcp = await rig.server.listenTcp('127.0.0.1', 0)
    return rig
  }

  /** Of the unix socket. */
  get path(): string {
    return join(this.directory, 'nbd.sock')
  }

  /** Of TCP, on 127.0.0.1. */
  get port(): number {
    return this.#tcp!.port
  }

  get listener(): NbdListener {
    return this.#unix!
  }

  /** For command lines of foreign clients. */
  get uri(): string {
    return `nbd+unix:///volume?socket=${this.path}`
  }

  connect(options: Partial<NbdClientOptions> = {}): Promise<NbdClient> {
    return NbdClient.connect({ ...CLIENT_OPTIONS, address: { path: this.path }, ...options }, millis(10_000))
  }

  /** Reasons for which connections have ended so far. */
  get closeReasons(): readonly CloseReason[] {
    return this.events.flatMap(event => (event.kind === 'closed' ? [event.reason] : []))
  }

  /** Waits until so many connections have ended. @returns their reasons */
  async closedConnections(count: number): Promise<readonly CloseReason[]> {
    while (this.closeReasons.length < count) {
      await new Promise<void>(resolve => (this.#eventSeen = resolve))
    }
    return this.closeReasons
  }

  async stop(): Promise<void> {
    await this.server.close()
    await rm(this.directory, { recursive: true, force: true })
  }
}

/** What tests of the client share; they add the address. */
export const CLIENT_OPTIONS = {
  exportName: 'volume',
  peer: 'the test server',
  clock,
  requestDeadlineMs: millis(20_000),
  bytesInFlightMax: 64 * 1024 * 1024,
  sequenced: false,
} as const satisfies Omit<NbdClientOptions, 'address'>
