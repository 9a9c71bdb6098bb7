import { type Heartbeat, type HeartbeatAnswer, type ProcessIdentity } from '../../core/mirror/messages.ts'
import { type PeerPulse } from '../../core/mirror/promise.ts'
import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Incarnation, type Millis } from '../../core/units.ts'
import { type ReplicaPeer } from '../mirror/replica-peer.ts'

/** What carries messages to one datapath process of another host; every call ends by itself. */
export interface PeerTransport extends Omit<ReplicaPeer, 'local' | 'pulse' | 'onPulse'> {
  heartbeat(heartbeat: Heartbeat): Promise<HeartbeatAnswer>
}

interface PeerProcessOptions {
  readonly transport: PeerTransport
  readonly clock: Clock
  readonly identity: ProcessIdentity
  readonly heartbeatIntervalMs: Millis
}

/**
 * One datapath process of another host, with the heartbeats to it. They run while somebody listens, one for all
 * volumes that the two processes share, and each is sent in its time whether or not the last was answered.
 */
export class PeerProcess implements ReplicaPeer {
  readonly local = false
  readonly #options: PeerProcessOptions
  readonly #listeners = new Set<() => void>()
  #timer: Timer | null = null
  #echo = 0
  #outstanding = 0
  #incarnation: Incarnation | null = null
  #renewedSentAt = -1 as Millis
  #takenAway = 0

  readonly accept: ReplicaPeer['accept']
  readonly confirm: ReplicaPeer['confirm']
  readonly raise: ReplicaPeer['raise']
  readonly intents: ReplicaPeer['intents']
  readonly digests: ReplicaPeer['digests']
  readonly clear: ReplicaPeer['clear']
  readonly finish: ReplicaPeer['finish']
  readonly create: ReplicaPeer['create']
  readonly openSession: ReplicaPeer['openSession']

  constructor(options: PeerProcessOptions) {
    this.#options = options
    const { transport } = options
    this.accept = async request => transport.accept(request)
    this.confirm = async request => transport.confirm(request)
    this.raise = async request => transport.raise(request)
    this.intents = async name => transport.intents(name)
    this.digests = async (name, region) => transport.digests(name, region)
    this.clear = async request => transport.clear(request)
    this.finish = async request => transport.finish(request)
    this.create = async (address, blank, lost) => transport.create(address, blank, lost)
    this.openSession = async name => transport.openSession(name)
  }

  get pulse(): PeerPulse {
    return { incarnation: this.#incarnation, renewedSentAt: this.#renewedSentAt, takenAway: this.#takenAway }
  }

  onPulse(listener: () => void): () => void {
    this.#listeners.add(listener)
    if (this.#timer === null) this.#beat()
    return () => {
      this.#listeners.delete(listener)
      if (this.#listeners.size > 0) return
      this.#timer?.cancel()
      this.#timer = null
    }
  }

  #beat(): void {
    const { clock, heartbeatIntervalMs } = this.#options
    this.#timer = clock.after(heartbeatIntervalMs, () => this.#beat())
    // A peer that hangs must not collect heartbeats without end.
    if (this.#outstanding < OUTSTANDING_MAX) void this.#send()
  }

  async #send(): Promise<void> {
    const { clock, identity, transport } = this.#options
    const sentAt = clock.now()
    this.#outstanding++
    try {
      const answer = await transport.heartbeat({ from: identity, echo: this.#echo })
      this.#answered(sentAt, answer)
      // The first answer renews nothing, because there was none to echo; the next one does.
      if (!answer.renewed && this.#listeners.size > 0) await this.#sendEcho()
    } catch {
      // Silence is measured by what did arrive.
    } finally {
      this.#outstanding--
    }
  }

  async #sendEcho(): Promise<void> {
    const { clock, identity, transport } = this.#options
    const sentAt = clock.now()
    this.#answered(sentAt, await transport.heartbeat({ from: identity, echo: this.#echo }))
  }

  #answered(sentAt: Millis, { identity, answer, renewed, takenAway }: HeartbeatAnswer): void {
    if (identity.incarnation !== this.#incarnation) {
      // An answer of the process that was there before may come late; its numbers are not those of the new one.
      if (this.#retired.has(identity.incarnation)) return
      if (this.#incarnation !== null) this.#retire(this.#incarnation)
      this.#incarnation = identity.incarnation
      this.#renewedSentAt = -1 as Millis
      this.#echo = 0
      this.#takenAway = 0
    }
    this.#echo = Math.max(this.#echo, answer)
    this.#takenAway = Math.max(this.#takenAway, takenAway)
    if (renewed && takenAway === this.#takenAway && sentAt > this.#renewedSentAt) this.#renewedSentAt = sentAt
    for (const listener of [...this.#listeners]) listener()
  }

  readonly #retired = new Set<Incarnation>()

  #retire(incarnation: Incarnation): void {
    this.#retired.add(incarnation)
    if (this.#retired.size > RETIRED_KEPT) this.#retired.delete(this.#retired.values().next().value!)
  }
}

/** Heartbeats without an answer at one time. */
const OUTSTANDING_MAX = 16
/** Dead processes of a peer that are remembered, against their late answers. */
const RETIRED_KEPT = 16
