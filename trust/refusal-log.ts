import { type Clock, type Timer } from '../core/ports/clock.ts'
import { millis } from '../core/units.ts'

/** One line of the log about connections that were not let in. */
export interface RefusalEvent {
  /** Where they came in. */
  readonly listener: string
  /** Where they came from; `others` when too many different addresses were refused to name each. */
  readonly address: string
  /** A word for programs, such as `expired`. */
  readonly cause: string
  /** In words, of the first of them. */
  readonly detail: string
  /** How many there were since the line before of this listener, address and cause. */
  readonly count: number
}

type Refusal = Omit<RefusalEvent, 'count'>

/** Often enough to see that an attack goes on, rare enough that a day of it is read in a minute. */
const WINDOW_MS = millis(60_000)
/** Different listeners, addresses and causes that are told apart at one time, some hundred bytes each. */
const ENTRIES_MAX = 1024

interface Entry {
  readonly refusal: Refusal
  /** Refusals since the last line. */
  count: number
  timer: Timer
}

/**
 * Says once what happens ten thousand times: the first refusal of an address for a cause at once, the others as a number
 * once a minute. So neither the log's disk nor its reader can be flooded from outside.
 */
export class RefusalLog {
  readonly #clock: Clock
  readonly #log: (event: RefusalEvent) => void
  readonly #entries = new Map<string, Entry>()

  constructor(clock: Clock, log: (event: RefusalEvent) => void) {
    this.#clock = clock
    this.#log = log
  }

  note(refusal: Refusal): void {
    const known = this.#entries.get(keyOf(refusal))
    if (known !== undefined) known.count += 1
    else if (this.#entries.size < ENTRIES_MAX) this.#begin(refusal)
    else if (refusal.address !== OTHERS) this.note({ ...refusal, address: OTHERS })
    else this.#begin(refusal)
  }

  /** Forgets everything; what was counted and not yet said is said now. */
  close(): void {
    for (const entry of this.#entries.values()) {
      entry.timer.cancel()
      this.#say(entry)
    }
    this.#entries.clear()
  }

  #begin(refusal: Refusal): void {
    this.#log({ ...refusal, count: 1 })
    const entry: Entry = { refusal, count: 0, timer: this.#after(() => this.#tick(entry)) }
    this.#entries.set(keyOf(refusal), entry)
  }

  #tick(entry: Entry): void {
    if (entry.count === 0) {
      this.#entries.delete(keyOf(entry.refusal))
      return
    }
    this.#say(entry)
    entry.timer = this.#after(() => this.#tick(entry))
  }

  #say(entry: Entry): void {
    if (entry.count > 0) this.#log({ ...entry.refusal, count: entry.count })
    entry.count = 0
  }

  #after(action: () => void): Timer {
    return this.#clock.after(WINDOW_MS, action)
  }
}

const OTHERS = 'others'

const keyOf = ({ listener, address, cause }: Refusal): string => `${listener} ${address} ${cause}`
