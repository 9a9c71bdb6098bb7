/**
 * The network between simulated hosts: calls with an answer, and sessions that keep their order, over links that
 * delay, may be cut in one direction, and deliver late what was under way when they healed, as TCP does.
 */
import { XosanError } from '../../core/errors.ts'
import { type ByteLength, type ByteOffset, type HostId } from '../../core/units.ts'
import { SILENCE } from '../../datapath/mirror/replica-link.ts'
import { type ReplicaSession } from '../../datapath/mirror/replica-peer.ts'
import {
  type BlockDeviceCapabilities,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../../datapath/block-device.ts'
import { type SeededRandom, type SimulatedProcess, type World } from './world.ts'

/** An end of a link: a host, and the process that runs on it now. */
export interface NetworkHost {
  readonly id: HostId
  readonly name: string
  readonly process: SimulatedProcess | null
  /** The machine runs, so that it answers for a process that does not. */
  readonly poweredOn: boolean
}

/** Mean one-way delay in milliseconds while nothing is slow. */
export const USUAL_DELAY_MS = 0.3

export class SimulatedNetwork {
  readonly world: World
  readonly random: SeededRandom
  /** Link -> how many faults cut it now. */
  readonly #cut = new Map<string, number>()
  /** Messages that wait for their link to heal. */
  #held: { readonly link: string; readonly go: () => void; readonly arrive: () => void }[] = []
  #delayMs = USUAL_DELAY_MS
  /** When a link was last cut or joined. */
  readonly #disturbed = new Map<string, number>()
  #allDisturbedAt = 0

  constructor(world: World) {
    this.world = world
    this.random = world.random.fork()
  }

  /** Mean one-way delay in milliseconds; a slow link has more. */
  get delayMs(): number {
    return this.#delayMs
  }
  set delayMs(delayMs: number) {
    this.#delayMs = delayMs
    this.#allDisturbedAt = this.world.now
  }

  get isSlow(): boolean {
    return this.#delayMs > USUAL_DELAY_MS
  }

  /** When anything happened to a direction of a link last. */
  disturbedAt(from: NetworkHost, to: NetworkHost): number {
    return Math.max(this.#allDisturbedAt, this.#disturbed.get(linkName(from, to)) ?? 0)
  }

  /** Cuts one direction, until it was joined as often as it was cut. */
  cut(from: NetworkHost, to: NetworkHost): void {
    const link = linkName(from, to)
    this.#cut.set(link, (this.#cut.get(link) ?? 0) + 1)
    this.#disturbed.set(link, this.world.now)
  }

  /** Takes one cut of a direction back. */
  join(from: NetworkHost, to: NetworkHost): void {
    const link = linkName(from, to)
    const cuts = this.#cut.get(link) ?? 0
    if (cuts > 1) this.#cut.set(link, cuts - 1)
    else this.#cut.delete(link)
    this.#disturbed.set(link, this.world.now)
    this.#deliverHeld()
  }

  /** Heals everything. */
  heal(): void {
    this.#cut.clear()
    this.#allDisturbedAt = this.world.now
    this.#deliverHeld()
  }

  /** Lets through what waits at a cut link, which stays cut. */
  deliverHeld(from: NetworkHost, to: NetworkHost): void {
    const name = linkName(from, to)
    const held = this.#held.filter(({ link }) => link === name)
    this.#held = this.#held.filter(({ link }) => link !== name)
    for (const { arrive } of held) this.world.after(this.#delay(), arrive)
  }

  #deliverHeld(): void {
    const held = this.#held
    this.#held = held.filter(({ link }) => this.#cut.has(link))
    for (const { link, go } of held) {
      if (!this.#cut.has(link) && this.random.chance(0.5)) this.world.after(this.#delay(), go)
    }
  }

  isCut(from: NetworkHost, to: NetworkHost): boolean {
    return this.#cut.has(linkName(from, to))
  }

  #delay(): number {
    // Mostly near the mean, now and then a straggler.
    const factor = this.random.chance(0.02) ? this.random.between(5, 60) : this.random.between(0.5, 2)
    return this.delayMs * factor
  }

  /** Carries one message. What meets a cut link waits, and may arrive when it heals. @returns when it would arrive */
  send(from: NetworkHost, to: NetworkHost, arrive: () => void, notBefore = 0): number {
    const link = linkName(from, to)
    const at = Math.max(this.world.now + this.#delay(), notBefore)
    const go = (): void => {
      if (this.#cut.has(link)) this.#held.push({ link, go, arrive })
      else arrive()
    }
    this.world.after(at - this.world.now, go)
    return at
  }

  /** Calls another host's process. Ends with PEER_UNREACHABLE when no answer comes in time. */
  async call<Result>(
    from: NetworkHost,
    to: NetworkHost,
    timeoutMs: number,
    action: () => Promise<Result>
  ): Promise<Result> {
    const caller = from.process!
    const end = caller.begin('calls')
    return new Promise<Result>((resolve, reject) => {
      const fail = (reason: string): void =>
        reject(new XosanError('PEER_UNREACHABLE', { host: to.name, reason }))
      const timer = caller.clock.after(timeoutMs as never, () => fail('no answer in time'))
      const answer = (settle: () => void): void => {
        this.send(to, from, () => {
          timer.cancel()
          caller.deliver(settle)
        })
      }
      this.send(from, to, () => {
        const process = to.process
        if (process === null) {
          if (to.poweredOn) answer(() => fail('connection refused'))
          return
        }
        process.deliver(() => {
          action().then(
            result => {
              if (process.alive) answer(() => resolve(result))
            },
            (error: unknown) => {
              if (process.alive) answer(() => reject(asError(error)))
            }
          )
        })
      })
    }).finally(end)
  }

  /** Opens a session on another host's process. */
  async openSession(
    from: NetworkHost,
    to: NetworkHost,
    timeoutMs: number,
    requestMs: number,
    open: () => Promise<ReplicaSession>
  ): Promise<ReplicaSession> {
    const server = to.process
    const session = await this.call(from, to, timeoutMs, open)
    return new RemoteSession(this, from, to, server!, session, requestMs)
  }
}

const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)))

const linkName = (from: NetworkHost, to: NetworkHost): string => `${from.name}>${to.name}`

/** A session as its primary holds it: calls arrive in order, answers as they come. */
class RemoteSession implements ReplicaSession {
  readonly closed: Promise<string>
  readonly capabilities: BlockDeviceCapabilities
  readonly size: ByteLength
  readonly #network: SimulatedNetwork
  readonly #from: NetworkHost
  readonly #to: NetworkHost
  readonly #client: SimulatedProcess
  readonly #server: SimulatedProcess
  readonly #remote: ReplicaSession
  readonly #requestMs: number
  #arrivesAt = 0
  #over: string | null = null
  #resolveClosed!: (reason: string) => void
  readonly #pending = new Set<(error: unknown) => void>()

  constructor(
    network: SimulatedNetwork,
    from: NetworkHost,
    to: NetworkHost,
    server: SimulatedProcess,
    remote: ReplicaSession,
    requestMs: number
  ) {
    this.#network = network
    this.#from = from
    this.#to = to
    this.#client = from.process!
    this.#server = server
    this.#remote = remote
    this.#requestMs = requestMs
    this.capabilities = remote.capabilities
    this.size = remote.size
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
    void remote.closed.then(reason => {
      if (server.alive) network.send(to, from, () => this.#client.deliver(() => this.abort(reason)))
    })
    this.#watchForReset()
  }

  /** A process that dies leaves a kernel that says so; a machine without power says nothing until it is back. */
  #watchForReset(): void {
    if (this.#over !== null || !this.#client.alive) return
    if (!this.#server.alive && this.#to.poweredOn) {
      this.#network.send(this.#to, this.#from, () =>
        this.#client.deliver(() => this.abort('connection reset'))
      )
      return
    }
    this.#network.world.after(5, () => this.#watchForReset())
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    const bytes = await this.#send(async remote => {
      const copy = new Uint8Array(into.length)
      await remote.read(offset, copy)
      return copy
    })
    into.set(bytes)
    return into
  }

  async write(request: WriteRequest): Promise<void> {
    // The kernel has its own copy from the moment of the call.
    const copy = { ...request, data: Uint8Array.from(request.data) }
    return this.#send(async remote => remote.write(copy))
  }

  async zero(request: ZeroRequest): Promise<void> {
    return this.#send(async remote => remote.zero(request))
  }

  async trim(request: TrimRequest): Promise<void> {
    return this.#send(async remote => remote.trim(request))
  }

  async flush(): Promise<void> {
    return this.#send(async remote => remote.flush())
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.#send(async remote => remote.allocation(offset, length))
  }

  async close(): Promise<void> {
    this.abort('the session was closed')
    await Promise.resolve()
  }

  abort(reason: string): void {
    if (this.#over !== null) return
    this.#over = reason
    const error = new XosanError('PEER_UNREACHABLE', { host: this.#to.name, reason })
    for (const reject of this.#pending) reject(error)
    this.#pending.clear()
    this.#resolveClosed(reason)
    const { deliver } = this.#server
    this.#network.send(this.#from, this.#to, () => deliver(() => this.#remote.abort(reason)), this.#arrivesAt)
  }

  async #send<Result>(action: (remote: ReplicaSession) => Promise<Result>): Promise<Result> {
    if (this.#over !== null)
      throw new XosanError('PEER_UNREACHABLE', { host: this.#to.name, reason: this.#over })
    const end = this.#client.begin('requests')
    return new Promise<Result>((resolve, reject) => {
      this.#pending.add(reject)
      const timer = this.#client.clock.after(this.#requestMs as never, () => this.abort(SILENCE))
      const answer = (settle: () => void): void => {
        if (!this.#server.alive) return
        this.#network.send(this.#to, this.#from, () =>
          this.#client.deliver(() => {
            if (!this.#pending.delete(reject)) return
            timer.cancel()
            settle()
          })
        )
      }
      const arrive = (): void =>
        this.#server.deliver(() => {
          action(this.#remote).then(
            result => answer(() => resolve(result)),
            (error: unknown) => answer(() => reject(asError(error)))
          )
        })
      // One stream: what was sent later never arrives earlier.
      this.#arrivesAt = this.#network.send(this.#from, this.#to, arrive, this.#arrivesAt)
    }).finally(end)
  }
}
