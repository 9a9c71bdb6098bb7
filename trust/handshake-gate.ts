import { type Socket } from 'node:net'
import { type Clock, type Timer } from '../core/ports/clock.ts'
import { type Millis, millis } from '../core/units.ts'
import { type RefusalLog } from './refusal-log.ts'

/** What those may hold who have not said yet who they are. */
export interface GateLimits {
  /** From the connection to its authentication. A loaded host needs a second, a round trip of 200 ms another one. */
  readonly handshakeMs: Millis
  /** Connections at one time; each holds some ten kilobytes. */
  readonly pendingMax: number
  /** The same of one address: more than a host opens when all volumes of a process reconnect. */
  readonly pendingOfAddressMax: number
}

export const DEFAULT_GATE_LIMITS: GateLimits = {
  handshakeMs: millis(5000),
  pendingMax: 512,
  pendingOfAddressMax: 128,
}

/** A connection that is not authenticated yet. Exactly one of its methods has an effect, the one called first. */
export interface Attempt {
  readonly socket: Socket
  /** It has been authenticated: from now on it is somebody else's to limit. */
  pass(): void
  /** Closes it and tells the log why. */
  refuse(cause: string, detail: string): void
}

/**
 * Counts the connections of one listener that have not been authenticated, and closes those that take too long or are
 * too many: of the address that has most of them, the oldest. So who floods from a few addresses pushes out only
 * himself, and never anybody who is authenticated.
 */
export class HandshakeGate {
  readonly #listener: string
  readonly #clock: Clock
  readonly #limits: GateLimits
  readonly #refusals: RefusalLog
  /** By address, each in the order of arrival. */
  readonly #pending = new Map<string, Set<Attempt>>()
  #count = 0

  constructor(listener: string, clock: Clock, refusals: RefusalLog, limits: GateLimits) {
    this.#listener = listener
    this.#clock = clock
    this.#refusals = refusals
    this.#limits = limits
  }

  /** Connections that are not authenticated yet. */
  get pending(): number {
    return this.#count
  }

  enter(socket: Socket): Attempt {
    const { handshakeMs, pendingMax, pendingOfAddressMax } = this.#limits
    const address = addressOf(socket)
    const attempt = this.#newAttempt(socket, address)
    const timer: Timer = this.#clock.after(handshakeMs, () =>
      attempt.refuse('handshake-timeout', `not authenticated within ${handshakeMs} ms`)
    )
    socket.once('close', () => {
      timer.cancel()
      attempt.refuse('left', 'it left before it was authenticated')
    })
    socket.on('error', () => undefined)
    const ofAddress = this.#pending.get(address)!
    if (ofAddress.size > pendingOfAddressMax) tooMany(ofAddress)
    else if (this.#count > pendingMax) tooMany(this.#largest())
    return attempt
  }

  /** Closes everything that is not authenticated, without a word. */
  close(): void {
    for (const ofAddress of this.#pending.values()) {
      for (const attempt of ofAddress) {
        attempt.pass()
        attempt.socket.destroy()
      }
    }
  }

  #newAttempt(socket: Socket, address: string): Attempt {
    let over = false
    const leave = (): boolean => {
      if (over) return false
      over = true
      this.#remove(address, attempt)
      return true
    }
    const attempt: Attempt = {
      socket,
      pass: () => void leave(),
      refuse: (cause, detail) => {
        if (!leave()) return
        this.#refusals.note({ listener: this.#listener, address, cause, detail })
        // Not at once: this may be called out of the middle of OpenSSL's work on the connection, and closing what
        // lies below at that moment ends the process with a segmentation fault (seen with Node 20.20).
        setImmediate(() => socket.destroy())
      },
    }
    const ofAddress = this.#pending.get(address) ?? new Set()
    this.#pending.set(address, ofAddress.add(attempt))
    this.#count += 1
    return attempt
  }

  #remove(address: string, attempt: Attempt): void {
    const ofAddress = this.#pending.get(address)!
    ofAddress.delete(attempt)
    if (ofAddress.size === 0) this.#pending.delete(address)
    this.#count -= 1
  }

  /** Of equals the one whose address came first. */
  #largest(): Set<Attempt> {
    let largest = new Set<Attempt>()
    for (const ofAddress of this.#pending.values()) if (ofAddress.size > largest.size) largest = ofAddress
    return largest
  }
}

function tooMany(attempts: Set<Attempt>): void {
  const [oldest] = attempts
  oldest?.refuse('too-many-half-open', `${attempts.size} connections from there are not authenticated`)
}

/** IPv4 looks the same on a listener for both families. */
const addressOf = ({ remoteAddress }: Socket): string => (remoteAddress ?? 'gone').replace(/^::ffff:/, '')
