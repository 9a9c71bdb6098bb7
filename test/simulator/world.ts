import { type Clock, type Timer } from '../../core/ports/clock.ts'
import { type Random } from '../../core/ports/random.ts'
import { type Millis } from '../../core/units.ts'

/**
 * Random numbers that a seed decides: xoshiro128** (Blackman and Vigna, 2018) on 32-bit integers, so that every
 * engine computes the same.
 */
export class SeededRandom implements Random {
  #a: number
  #b: number
  #c: number
  #d: number

  constructor(seed: number) {
    // SplitMix32 spreads neighbouring seeds over the whole state.
    let state = seed >>> 0
    const split = (): number => {
      state = (state + 0x9e3779b9) >>> 0
      let z = state
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
      return (z ^ (z >>> 16)) >>> 0
    }
    this.#a = split()
    this.#b = split()
    this.#c = split()
    this.#d = split()
  }

  #next(): number {
    const times5 = Math.imul(this.#b, 5)
    const result = Math.imul((times5 << 7) | (times5 >>> 25), 9) >>> 0
    const t = this.#b << 9
    this.#c ^= this.#a
    this.#d ^= this.#b
    this.#b ^= this.#c
    this.#a ^= this.#d
    this.#c ^= t
    this.#d = (this.#d << 11) | (this.#d >>> 21)
    return result
  }

  fraction(): number {
    return this.#next() / 2 ** 32
  }

  /** A whole number from 0 up to, and not including, a limit. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit)
  }

  between(low: number, high: number): number {
    return low + this.fraction() * (high - low)
  }

  chance(probability: number): boolean {
    return this.fraction() < probability
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!
  }

  /** The items in another order. */
  shuffled<T>(items: readonly T[]): T[] {
    const result = [...items]
    for (let i = result.length - 1; i > 0; i--) {
      const j = this.below(i + 1)
      ;[result[i], result[j]] = [result[j]!, result[i]!]
    }
    return result
  }

  uuid(): string {
    const hex = [this.#next(), this.#next(), this.#next(), this.#next()]
      .map(word => word.toString(16).padStart(8, '0'))
      .join('')
    const variant = (8 + (parseInt(hex[16]!, 16) % 4)).toString(16)
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`
  }

  /** An independent source, so that drawing more in one place does not shift all others. */
  fork(): SeededRandom {
    return new SeededRandom(this.#next())
  }
}

interface Event {
  readonly at: number
  readonly order: number
  action: (() => void) | null
}

/** Virtual time: a queue of events, run one after the other; between two of them all promises are worked off. */
export class World {
  readonly random: SeededRandom
  readonly #log: (line: string) => void
  readonly #heap: Event[] = []
  readonly #turns = new Turns()
  #order = 0
  #now = 0
  #events = 0

  constructor(seed: number, log: (line: string) => void) {
    this.random = new SeededRandom(seed)
    this.#log = log
  }

  /** Virtual time in milliseconds. */
  get now(): number {
    return this.#now
  }

  /** How many events have run. */
  get events(): number {
    return this.#events
  }

  log(who: string, text: string): void {
    this.#log(`${this.#now.toFixed(3).padStart(11)} ${who.padEnd(8)} ${text}`)
  }

  /** Runs an action after a delay of virtual time, in milliseconds. @returns the way to forget it */
  after(delayMs: number, action: () => void): Timer {
    const event: Event = { at: this.#now + Math.max(delayMs, 0), order: this.#order++, action }
    this.#push(event)
    return { cancel: () => (event.action = null) }
  }

  async pause(delayMs: number): Promise<void> {
    return new Promise(resolve => void this.after(delayMs, resolve))
  }

  /** Runs until a promise settles. @throws when nothing is left to happen, or virtual time passes the limit */
  async runUntil<Result>(promise: Promise<Result>, limitMs: number): Promise<Result> {
    let settled = false
    promise.then(
      () => (settled = true),
      () => (settled = true)
    )
    await this.#turns.turn()
    while (!settled) {
      const event = this.#pop()
      if (event === undefined) throw new Error('nothing is left to happen, and nobody is done')
      if (event.at > limitMs) throw new Error(`not done after ${limitMs} ms of virtual time`)
      this.#now = event.at
      if (event.action === null) continue
      this.#events++
      event.action()
      await this.#turns.turn()
    }
    return promise
  }

  #push(event: Event): void {
    const heap = this.#heap
    heap.push(event)
    let index = heap.length - 1
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!before(event, heap[parent]!)) break
      heap[index] = heap[parent]!
      index = parent
    }
    heap[index] = event
  }

  #pop(): Event | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || heap.length === 0) return first
    let index = 0
    for (;;) {
      let child = 2 * index + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
      if (!before(heap[child]!, last)) break
      heap[index] = heap[child]!
      index = child
    }
    heap[index] = last
    return first
  }
}

const before = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

/** So many turns of promises for one of Node's event loop, which asks the system for news each time: a third of a run. */
const TURNS_AT_ONCE = 64

/** Lets promises say all that they have to say. */
class Turns {
  #scheduled = 0
  #next: (() => void) | null = null

  /** Everything is said when this resolves. One at a time may wait. */
  async turn(): Promise<void> {
    return new Promise(resolve => {
      this.#next = resolve
      if (this.#scheduled > 0) return
      this.#scheduled = TURNS_AT_ONCE
      // Between two of them Node works off all ticks and promises, as it does between two turns of its loop.
      for (let i = 0; i < TURNS_AT_ONCE; i++) setImmediate(this.#run)
    })
  }

  readonly #run = (): void => {
    this.#scheduled--
    const next = this.#next
    this.#next = null
    next?.()
  }
}

/** What a process can have under way at its ports. */
export type Port = 'calls' | 'requests' | 'disk' | 'coordinator'

/** A process of a host: what happens to it waits while it is stopped, and never happens once it is dead. */
export class SimulatedProcess {
  readonly #world: World
  /** How fast its clock runs: quartz differs, virtual machines differ more. */
  readonly #rate: number
  readonly #watch: (port: Port, underWay: number) => void
  readonly #underWay: Record<Port, number> = { calls: 0, requests: 0, disk: 0, coordinator: 0 }
  #alive = true
  #paused = false
  #waiting: (() => void)[] = []
  /** Resolves when it is dead. */
  readonly ended: Promise<void>
  #end!: () => void

  /** @param watch told whenever something more is under way at a port */
  constructor(world: World, rate: number, watch: (port: Port, underWay: number) => void = () => undefined) {
    this.#world = world
    this.#rate = rate
    this.#watch = watch
    this.ended = new Promise(resolve => (this.#end = resolve))
  }

  get alive(): boolean {
    return this.#alive
  }

  get paused(): boolean {
    return this.#paused
  }

  /** Nothing is under way at any port but calls: of these a heartbeat may be on its way at any time. */
  get isIdle(): boolean {
    const { requests, disk, coordinator } = this.#underWay
    return requests + disk + coordinator === 0
  }

  /** Something is under way at a port. @returns the way to say that it has ended, which may be said twice */
  begin(port: Port): () => void {
    this.#watch(port, ++this.#underWay[port])
    let over = false
    return () => {
      if (!over) this.#underWay[port]--
      over = true
    }
  }

  /** Lets something happen in the process: now, when it goes on, or never. */
  readonly deliver = (action: () => void): void => {
    if (!this.#alive) return
    if (this.#paused) this.#waiting.push(action)
    else action()
  }

  kill(): void {
    this.#alive = false
    this.#waiting = []
    this.#end()
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    // One event each, as an event loop takes them up one after the other.
    for (const action of this.#waiting.splice(0)) this.#world.after(0, () => this.deliver(action))
  }

  readonly clock: Clock = {
    now: () => (this.#world.now * this.#rate) as Millis,
    after: (delayMs, action) => this.#world.after(delayMs / this.#rate, () => this.deliver(action)),
  }
}
