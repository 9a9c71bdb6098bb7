import { XosanError } from '../../core/errors.ts'
import { DEFAULT_BATCHES, type MirrorBatches } from '../../core/mirror/batches.ts'
import { type ConfirmRequest, type ProcessIdentity } from '../../core/mirror/messages.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import {
  type BootId,
  type HostId,
  type Incarnation,
  type Millis,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../../core/units.ts'
import { type Attachment } from '../../datapath/process/attachments.ts'
import { DatapathNode } from '../../datapath/process/datapath-node.ts'
import { type ReplicaSession } from '../../datapath/mirror/replica-peer.ts'
import { type PeerTransport } from '../../datapath/process/peer-process.ts'
import { counted, excess } from './bounds.ts'
import { type Moment } from './coincidences.ts'
import { type SimulatedNetwork } from './network.ts'
import { type SimulatedCoordinator } from './simulated-coordinator.ts'
import { checkAccepted, saysThatItLost } from './recoverable.ts'
import { SimulatedDisk, type SimulatedMount } from './simulated-disk.ts'
import { metadataFileOf } from './simulated-volume.ts'
import { SimulatedProcess, type SeededRandom, type World } from './world.ts'

interface HostOptions {
  readonly world: World
  readonly network: SimulatedNetwork
  readonly coordinator: SimulatedCoordinator
  readonly timing: MirrorTiming
  readonly batches?: MirrorBatches
  readonly sr: SrId
  readonly name: string
  readonly hosts: () => readonly SimulatedHost[]
  readonly observer?: HostObserver
}

/** Who watches what hosts ask of each other. */
export interface HostObserver {
  /** Something was asked of a host, or happened to it. */
  noticed(moment: Moment, host: SimulatedHost): void
  problem(text: string): void
  /** What was not durable on a host may be gone, although nobody has cut its power. */
  writesWereLost(): void
  /** Bytes were read from the replica of a host. */
  readFrom(bytes: Uint8Array, host: SimulatedHost): void
  /** A message between hosts was answered, or ended with an error. */
  saw(message: string, answer: string): void
  /** A process has believed another one that it is the primary. */
  confirmed(host: SimulatedHost, node: DatapathNode, request: ConfirmRequest): void
  /** A process has logged something. */
  said(host: SimulatedHost, event: string, facts: Readonly<Record<string, string | number>>): void
}

/** What runs on a host beside its datapath process. */
export interface HostCompanion {
  start(): void
  powerWasCut(): void
}

/** A host: its disk, which stays, and its datapath process, which comes and goes. */
export class SimulatedHost {
  readonly id: HostId
  readonly name: string
  readonly disk: SimulatedDisk
  readonly #options: HostOptions
  readonly #random: SeededRandom
  readonly #rate: number
  #boot: BootId
  #store: StoreId
  /** The file system that holds the store is not mounted. */
  storeIsMissing = false
  #process: SimulatedProcess | null = null
  #mount: SimulatedMount | null = null
  #node: DatapathNode | null = null
  #poweredOn = true
  /** The process ends in order: it serves nobody any more. */
  #ending = false
  #attachments: readonly Attachment[] = []
  #diskSlowness = 1
  #slowCalls = 0
  /** When anything happened to it last. */
  disturbedAt = 0
  /** Calls of the disk that hang, in the order in which they came; null while the disk answers. */
  #hanging: (() => void)[] | null = null
  /** The disk that the attachments are noted on is full. */
  cannotNote = false
  /** When it lost power last; -Infinity while that never happened. */
  #lastPowerCut = Number.NEGATIVE_INFINITY
  /** When a disk last refused to make durable what a volume's replica holds. */
  readonly #lastFailures = new Map<VolumeKey, number>()
  /** Volumes of which a sync failed, and no file says so yet. */
  readonly #unnoted = new Set<VolumeKey>()
  /** Another process of the machine, which loses power with it and is started when it is back. */
  companion: HostCompanion | null = null

  constructor(options: HostOptions) {
    const { world } = options
    this.#options = options
    this.#random = world.random.fork()
    this.#rate = this.#random.between(0.97, 1.03)
    this.id = this.#random.uuid() as HostId
    this.name = options.name
    this.#store = this.#random.uuid() as StoreId
    this.#boot = this.#random.uuid() as BootId
    this.disk = new SimulatedDisk({ random: this.#random.fork(), delay: async call => this.#diskDelay(call) })
  }

  get store(): StoreId {
    return this.#store
  }
  get process(): SimulatedProcess | null {
    return this.#process
  }
  /** How fast the clocks of its processes run. */
  get clockRate(): number {
    return this.#rate
  }
  get poweredOn(): boolean {
    return this.#poweredOn
  }
  /** The running datapath process; null while there is none. */
  get node(): DatapathNode | null {
    return this.#node
  }
  /** The files of a volume are gone for good, and with them what was not durable. */
  lostFiles(key: VolumeKey): void {
    this.#lastFailures.set(key, this.#options.world.now)
    this.#unnoted.delete(key)
  }
  /** When it may have lost what was not durable of a volume; -Infinity while that never happened. */
  lastLossOf(key: VolumeKey): number {
    return Math.max(this.#lastPowerCut, this.#lastFailures.get(key) ?? Number.NEGATIVE_INFINITY)
  }
  /** Whether a process of this boot has noted that a guest has a volume: the next one takes it up, when it can. */
  remembersGuest(key: VolumeKey): boolean {
    return this.#attachments.some(({ volume, activated }) => volume === key && activated)
  }
  get running(): boolean {
    return this.#node !== null && this.#process?.paused === false && !this.#ending
  }

  /** Disk calls take this many times as long as usual, in the mean. */
  get diskSlowness(): number {
    return this.#diskSlowness
  }
  set diskSlowness(factor: number) {
    this.#diskSlowness = factor
    this.disturb()
  }

  /** Calls that were made while the disk was slow are under way still, and may take seconds. */
  get diskStraggles(): boolean {
    return this.#slowCalls > 0
  }

  /** Something happens to it, and may have any effect for a moment. */
  disturb(): void {
    this.disturbedAt = this.#options.world.now
  }

  /** Starts a datapath process if none runs. */
  start(): void {
    if (this.#process !== null) return
    this.disturb()
    this.#ending = false
    const { world, coordinator, timing, batches = DEFAULT_BATCHES } = this.#options
    this.#poweredOn = true
    const process = new SimulatedProcess(world, this.#rate, (port, underWay) => {
      const wrong = excess(port, underWay)
      if (wrong !== null) this.#options.observer?.problem(`P9: ${this.name} has ${wrong}`)
    })
    const mount = this.disk.mount()
    const identity: ProcessIdentity = {
      host: this.id,
      boot: this.#boot,
      incarnation: this.#random.uuid() as Incarnation,
    }
    this.#process = process
    this.#mount = mount
    const transports = new Map<HostId, PeerTransport>()
    const node = new DatapathNode({
      identity,
      clock: process.clock,
      random: this.#random.fork(),
      timing,
      batches,
      coordinator: counted(coordinator.client(this.name, process.deliver), process),
      store: async sr => {
        if (!this.storeIsMissing) return { id: this.store, disk: mount }
        throw new XosanError('STORE_MISSING', { sr, path: '/store', reason: 'it is not mounted' })
      },
      attachments: {
        load: async () => this.#attachments,
        save: async attachments => {
          if (this.cannotNote) throw Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' })
          this.#attachments = attachments
        },
      },
      isOurs: () => true,
      transport: host => {
        let transport = transports.get(host)
        if (transport === undefined) {
          transport = this.#transport(this.#options.hosts().find(({ id }) => id === host)!)
          transports.set(host, transport)
        }
        return transport
      },
      log: (event, facts) => {
        world.log(this.name, `${event} ${briefly(facts)}`)
        this.#options.observer?.said(this, event, facts)
      },
    })
    this.#watchReplicas(node)
    this.#node = node
    world.log(this.name, `process starts ${identity.incarnation.slice(0, 8)}`)
    process.deliver(() => void node.start())
    this.companion?.start()
  }

  /** Notes whose bytes the local replica's are, and that no epoch is accepted which a power cut would undo. */
  #watchReplicas({ replicas }: DatapathNode): void {
    const { observer } = this.#options
    if (observer === undefined) return
    const accept = replicas.accept.bind(replicas)
    replicas.accept = async request => {
      const answer = await accept(request)
      if (answer.kind !== 'accepted') return answer
      const wrong = checkAccepted(this, metadataFileOf({ key: request.address.volume }), request.epoch)
      if (wrong !== null) observer.problem(wrong)
      return answer
    }
    const openSession = replicas.openSession.bind(replicas)
    replicas.openSession = async name => this.#signed(await openSession(name), this)
  }

  /** A session that leaves word of where the bytes of each read come from. */
  #signed(session: ReplicaSession, from: SimulatedHost): ReplicaSession {
    const { observer } = this.#options
    const read = session.read.bind(session)
    session.read = async (offset, into) => {
      const bytes = await read(offset, into)
      observer?.readFrom(bytes, from)
      return bytes
    }
    const readAtOnce = session.readAtOnce?.bind(session)
    session.readAtOnce = (offset, into) => {
      const isRead = readAtOnce?.(offset, into) ?? false
      if (isRead) observer?.readFrom(into, from)
      return isRead
    }
    return session
  }

  /** Tells the process to end in order, as for an upgrade. Resolves when it has, or gives up; to be followed by `crash`. */
  async end(withinMs: Millis): Promise<void> {
    const [process, node] = [this.#process, this.#node]
    if (process === null || node === null) return
    this.#options.world.log(this.name, 'process is told to end')
    this.disturb()
    this.#ending = true
    const ended = new Promise<void>(resolve => {
      process.deliver(() => void node.stop(withinMs).then(resolve, resolve))
    })
    await Promise.race([ended, this.#options.world.pause(withinMs)])
  }

  /**
   * A sync of a volume's files has failed, or a map could not be written: the page cache may show what the disk will never
   * have. The process that hears of it is the only one that ever does.
   */
  failedToKeep(key: VolumeKey): void {
    this.#lastFailures.set(key, this.#options.world.now)
    this.#unnoted.add(key)
    this.disk.written = name => {
      for (const other of this.#unnoted) {
        const file = metadataFileOf({ key: other })
        if (name === file && saysThatItLost(this.disk, file)) this.#unnoted.delete(other)
      }
      if (this.#unnoted.size === 0) this.disk.written = undefined
    }
    this.#options.observer?.writesWereLost()
  }

  /**
   * The process dies; the page cache stays. One that has heard of a failed sync and has not been able to leave word of it
   * dies only with its machine: no other process could ever know.
   */
  crash(): void {
    if (this.#unnoted.size > 0) {
      this.cutPower()
      this.#options.observer?.writesWereLost()
      return
    }
    this.#options.world.log(this.name, 'process dies')
    this.disturb()
    this.#process?.kill()
    this.#mount?.crash()
    this.#process = null
    this.#mount = null
    this.#node = null
  }

  /** The host loses power, and with it every un-synced write. */
  cutPower(): void {
    this.#options.world.log(this.name, 'power is cut')
    this.disturb()
    this.#process?.kill()
    this.disk.powerCut()
    this.#process = null
    this.#mount = null
    this.#node = null
    this.#poweredOn = false
    this.#attachments = []
    this.companion?.powerWasCut()
    this.#boot = this.#random.uuid() as BootId
    this.#lastPowerCut = this.#options.world.now
    this.#unnoted.clear()
  }

  /** The disk is replaced by an empty one, on which a new store is made. No process runs. */
  replaceDisk(): void {
    this.#options.world.log(this.name, 'disk is replaced')
    this.disk.wipe()
    this.#store = this.#random.uuid() as StoreId
  }

  pause(): void {
    this.#options.world.log(this.name, 'process is stopped')
    this.disturb()
    this.#process?.pause()
  }

  resume(): void {
    this.#options.world.log(this.name, 'process goes on')
    this.disturb()
    this.#process?.resume()
  }

  get diskHangs(): boolean {
    return this.#hanging !== null
  }

  /** From here no call of the disk comes back, and those that have not had their effect yet do not have it either. */
  hangDisk(): void {
    if (this.#hanging !== null) return
    this.#options.world.log(this.name, 'disk hangs')
    this.disturb()
    this.#hanging = []
  }

  /** The disk answers again: calls that hung end in any order, within half a second, and have their effects then. */
  freeDisk(): void {
    if (this.#hanging === null) return
    this.#options.world.log(this.name, `disk answers ${this.#hanging.length} calls that hung`)
    this.disturb()
    const hanging = this.#random.shuffled(this.#hanging)
    this.#hanging = null
    for (const end of hanging) this.#options.world.after(this.#random.between(0, 500), end)
  }

  /** A session that notices when the replica obeys somebody whose epoch it has given up (P3). */
  #guarded(
    session: ReplicaSession,
    to: SimulatedHost,
    volume: VolumeKey,
    observer: HostObserver
  ): ReplicaSession {
    const mine = this.#node!.identity.incarnation
    const node = to.node!
    const watch = async <Result>(what: string, action: () => Promise<Result>): Promise<Result> => {
      const holder = node.replicas.holderOf(volume)?.incarnation
      const result = await action()
      if (holder !== mine)
        observer.problem(`P3: ${to.name} obeyed a ${what} of ${this.name}, which had lost the right to it`)
      return result
    }
    return {
      closed: session.closed,
      capabilities: session.capabilities,
      size: session.size,
      read: async (offset, into) => watch('read', async () => session.read(offset, into)),
      write: async request => watch('write', async () => session.write(request)),
      zero: async request => watch('zero', async () => session.zero(request)),
      trim: async request => watch('trim', async () => session.trim(request)),
      flush: async () => watch('flush', async () => session.flush()),
      allocation: async (offset, length) => session.allocation(offset, length),
      close: async () => session.close(),
      abort: reason => session.abort(reason),
    }
  }

  async #diskDelay(call: string): Promise<void> {
    const process = this.#process
    if (call === 'sync') this.#options.observer?.noticed('about to sync', this)
    const usual =
      call === 'sync' || call === 'syncDirectory'
        ? this.#random.between(0.2, 1.5)
        : this.#random.between(0.01, 0.1)
    const straggles = this.#random.chance(0.005) ? 30 : 1
    // A disk that is slow is not slow evenly: what came later may be done much earlier.
    const isSlow = this.diskSlowness > 1
    const slowness = this.#random.between(1, 2 * this.diskSlowness - 1)
    const ended = process?.begin('disk')
    return new Promise(resolve => {
      const end = (): void => {
        if (this.#hanging === null) {
          ended?.()
          process?.deliver(resolve)
        } else this.#hanging.push(end)
      }
      if (isSlow) this.#slowCalls++
      this.#options.world.after(usual * straggles * slowness, () => {
        if (isSlow && --this.#slowCalls === 0 && this.diskSlowness === 1) this.disturb()
        end()
      })
    })
  }

  /** Sends a message, and says what was answered. */
  async #watched<Result>(message: string, send: () => Promise<Result>): Promise<Result> {
    const { observer } = this.#options
    try {
      const result = await send()
      const { kind = 'ok' } = (result ?? {}) as { readonly kind?: string }
      observer?.saw(message, kind)
      return result
    } catch (error) {
      observer?.saw(message, error instanceof XosanError ? error.code : 'another error')
      throw error
    }
  }

  #transport(to: SimulatedHost): PeerTransport {
    const { network, timing, observer } = this.#options
    const call = async <Result>(
      message: string,
      moment: Moment | null,
      action: (node: DatapathNode) => Promise<Result>
    ): Promise<Result> =>
      this.#watched(message, async () =>
        network.call(this, to, timing.callTimeoutMs, async () => {
          if (moment !== null) observer?.noticed(moment, to)
          const result = await action(to.node!)
          if (moment === 'asked to accept') observer?.noticed('has accepted', to)
          return result
        })
      )
    return {
      // Too many to be watched.
      heartbeat: async heartbeat =>
        network.call(this, to, timing.callTimeoutMs, async () => to.node!.replicas.heartbeat(heartbeat)),
      accept: async request => call('accept', 'asked to accept', async node => node.replicas.accept(request)),
      confirm: async request =>
        call('confirm', 'asked to confirm', async node => {
          const answer = await node.replicas.confirm(request)
          if (answer.kind === 'ok') observer?.confirmed(to, node, request)
          return answer
        }),
      raise: async request => call('raise', 'asked to raise', async node => node.replicas.raise(request)),
      intents: async name => call('intents', 'asked for intents', async node => node.replicas.intents(name)),
      digests: async (name, region) =>
        call('digests', null, async node => node.replicas.digests(name, region)),
      clear: async request => call('clear', 'asked to clear', async node => node.replicas.clear(request)),
      finish: async request => call('finish', 'asked to finish', async node => node.replicas.finish(request)),
      create: async (address, blank, lost) =>
        call('create', null, async node => node.replicas.create(address, blank, { lost })),
      openSession: async name =>
        this.#watched('session', async () =>
          this.#signed(
            await network.openSession(this, to, timing.callTimeoutMs, timing.requestTimeMs, async () => {
              observer?.noticed('asked for a session', to)
              const session = await to.node!.replicas.openSession(name)
              return observer === undefined
                ? session
                : this.#guarded(session, to, name.address.volume, observer)
            }),
            to
          )
        ),
    }
  }
}

const briefly = (facts: Readonly<Record<string, string | number>>): string =>
  Object.entries(facts)
    .map(
      ([name, value]) =>
        `${name}=${typeof value === 'string' ? value.replace(/([0-9a-f]{8})-[0-9a-f-]{27}/g, '$1') : value}`
    )
    .join(' ')
