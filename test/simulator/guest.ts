import { hasCode, reasonOf } from '../../core/errors.ts'
import { type ByteLength, type ByteOffset, type Millis } from '../../core/units.ts'
import { type BlockDevice } from '../../datapath/block-device.ts'
import { GuestConnection } from '../../datapath/process/guest-connection.ts'
import { type GuestDevice } from '../../datapath/process/guest-device.ts'
import { type Durability } from './durability.ts'
import { type History, SECTOR_BYTES, type Tenant, type WriteEntry, ZEROS } from './history.ts'
import { type SeededRandom, type SimulatedProcess, type World } from './world.ts'

interface GuestOptions {
  readonly world: World
  readonly random: SeededRandom
  readonly process: SimulatedProcess
  readonly device: GuestDevice
  readonly history: History
  readonly durability: Durability
  /** First sectors of the places that all guests of the volume share. */
  readonly hotSectors: readonly number[]
  /** How many sectors there are. */
  readonly sectors: number
  readonly tenure: number
  /** Name of the host that serves it. */
  readonly host: string
  readonly nextValue: () => number
  /** Until when nobody works, in milliseconds of virtual time. */
  readonly quietUntil: () => number
  /** It is one that flushes, and does not want every write to be durable. */
  readonly mustFlush: boolean
  /** The process had the volume for a guest from before its start, and does not know what that one had flushed. */
  readonly takenUp: boolean
  /** Whether a disk cannot read some sectors now, so that a read of them may end with an error. */
  readonly cannotRead: (first: number, end: number) => boolean
  readonly problem: (text: string) => void
  /** A request was answered. @param bytes what a read returned; null for others */
  readonly answered: (bytes: Uint8Array | null) => void
  readonly log: (text: string) => void
}

interface SectorRange {
  readonly first: number
  readonly end: number
}

/** A read that took longer than this was sent again, and an earlier call may have its buffer still; in milliseconds. */
const SENT_AGAIN_MS = 4_000

/** What a guest puts into a buffer that it uses again. */
const REUSED = 0xee

/** How often a guest asks for nothing, which is done at once or in its turn. */
const NOTHING_CHANCE = 0.002

/** How often an answer is held up on its way to the guest, and for how long at most, in milliseconds. */
const HELD_UP_CHANCE = 0.01
const HELD_UP_MS = 300
/** How often one that may not leave is looked at again, in milliseconds. */
const LOOK_MS = 50

/** Those who only read are there to see what is wrong, not to be many; in milliseconds. */
const READER_PAUSE_MS = 25

/** A virtual machine: some requests at once, again and again at the same few places. */
export class Guest {
  readonly #options: GuestOptions
  readonly #changing = new Set<SectorRange>()
  /** Buffers of reads that were sent again: the guest's own from then on, and full of other things. */
  readonly #reused: { readonly bytes: Buffer; readonly first: number }[] = []
  /** When the requests under way were made, oldest first. */
  readonly #waiting = new Set<{ readonly since: number }>()
  #abandoned = false
  readonly #connection: GuestConnection
  #disconnected = false
  /** Until when it only reads, in milliseconds of virtual time. */
  #readsUntil = 0
  #stopping = false
  #running = 0
  #stopped: (() => void) | null = null
  readonly #tenant: Tenant
  /** Whoever flushes first is told of what a guest of before may have lost. */
  #toBeTold: boolean
  /** Whether it ever flushes; one that does not relies on every single write. */
  readonly #flushes: boolean
  /** The places that it likes. The others have time to grow cold: their write intents are cleared. */
  readonly #hotSectors: readonly number[]
  /** How often a request goes anywhere else. */
  readonly #wandering: number
  /** The longest pause between two requests, in milliseconds: some guests are busy, most are not. */
  readonly #pauseMs: number

  constructor(options: GuestOptions) {
    const { world, tenure, process, host } = options
    this.#options = options
    this.#connection = new GuestConnection(options.device)
    this.#tenant = { tenure, process, host, startedAt: world.now }
    this.#toBeTold = options.takenUp
    options.history.begins(this.#tenant)
    this.#flushes = options.random.chance(0.7) || options.mustFlush
    this.#hotSectors = options.random.shuffled(options.hotSectors).slice(0, 2 + options.random.below(5))
    this.#wandering = options.random.pick([0, 0.003, 0.03])
    this.#pauseMs = options.random.pick([5, 40, 100, 200])
  }

  /**
   * @param depth requests under way at once, of any kind
   * @param readers more of them that only read, so that somebody goes on asking when all writes are held
   */
  start(depth: number, readers: number): void {
    for (let i = 0; i < depth + readers; i++) {
      this.#running++
      this.#options.process.deliver(() => void this.#run(i >= depth))
    }
  }

  /** The datapath process that serves it. */
  get process(): SimulatedProcess {
    return this.#options.process
  }

  /** Since when its oldest request waits; null while none does. */
  get waitingSince(): number | null {
    for (const { since } of this.#waiting) return since
    return null
  }

  /** Whether a request that was made between two moments still waits, whoever is to answer it. */
  waitsSince(from: number, to: number): boolean {
    for (const { since } of this.#waiting) if (since > from && since < to) return true
    return false
  }

  /** Whether anybody is to answer its requests: a process, by a device that it has now. */
  isServedBy(process: SimulatedProcess, device: BlockDevice | null): boolean {
    return !this.#abandoned && this.#options.process === process && this.#options.device === device
  }

  /** Where its changes are under way. */
  get changing(): Iterable<SectorRange> {
    return this.#changing
  }

  /** Whether it leaves anything un-flushed. */
  get flushes(): boolean {
    return this.#flushes
  }

  /**
   * Writes to places anywhere at once, as a machine does that writes back what it had in memory.
   * @param durable how many of them it wants to be durable, as a part of 1; all, if it never flushes
   */
  scatter(writes: number, durable = 0.2): void {
    const { random, sectors, process, problem } = this.#options
    for (let i = 0; i < writes; i++) {
      const count = 1 + random.below(12)
      const first = random.below(sectors - count)
      process.deliver(() => {
        this.#write(first, count, durable).catch((error: unknown) =>
          problem(`P5: the guest got an error: ${reasonOf(error)}`)
        )
      })
    }
  }

  /** Flushes beside everything else. */
  flushNow(): void {
    const { process, problem } = this.#options
    process.deliver(() => {
      this.#flush().catch((error: unknown) => problem(`P5: the guest got an error: ${reasonOf(error)}`))
    })
  }

  /** Changes nothing until then, and reads all the more: no change that is held keeps a read from being answered. */
  onlyRead(until: number): void {
    this.#readsUntil = until
  }

  /** Asks for nothing more. Resolves when all it asked for is answered, which may be never. */
  async stop(): Promise<void> {
    this.#stopping = true
    if (this.#running > 0) await new Promise<void>(resolve => (this.#stopped = resolve))
  }

  /** It may ask for something. */
  get connected(): boolean {
    return !this.#stopping
  }

  /** The machine is gone: whatever it still hears of changes nothing. */
  abandon(): void {
    this.#stopping = true
    this.#abandoned = true
  }

  /** Its connection is broken off: it hears of nothing any more. */
  disconnect(): void {
    this.abandon()
    this.#disconnected = true
    this.#connection.breakOff('the guest is gone')
  }

  /** Everything is over: in the buffers that it has used again is still what it put there. */
  checkReturned(): void {
    for (const { bytes, first } of this.#reused) {
      if (bytes.some(byte => byte !== REUSED)) {
        this.#options.problem(
          `P4: the buffer of a read of sector ${first} was filled again after it was answered`
        )
      }
    }
  }

  async #run(isReader: boolean): Promise<void> {
    const { random, process, problem, world } = this.#options
    while (!this.#stopping) {
      const onlyReads = isReader || world.now < this.#readsUntil
      const pauseMs = isReader ? Math.max(this.#pauseMs, READER_PAUSE_MS) : this.#pauseMs
      try {
        await this.#rest()
        await this.#request(onlyReads)
      } catch (error) {
        problem(`P5: the guest got an error: ${reasonOf(error)}`)
        break
      }
      await new Promise<void>(resolve =>
        process.clock.after((random.fraction() * pauseMs) as Millis, resolve)
      )
    }
    this.#running--
    if (this.#running === 0) this.#stopped?.()
  }

  /** A machine that has nothing to do has written back what it had, and says nothing for a while. */
  async #rest(): Promise<void> {
    const { world, process, quietUntil } = this.#options
    const quietMs = quietUntil() - world.now
    if (quietMs <= 0) return
    await this.#flush()
    await new Promise<void>(resolve => process.clock.after(quietMs as Millis, resolve))
  }

  async #request(onlyReads: boolean): Promise<void> {
    const { random, sectors } = this.#options
    const count = random.chance(0.03) ? 128 : 1 + random.below(12)
    const place = random.chance(this.#wandering)
      ? random.below(sectors)
      : random.pick(this.#hotSectors) + random.below(8)
    const first = Math.min(place, sectors - count)
    const what = onlyReads ? 0 : random.fraction()
    this.#options.history.requests++
    if (random.chance(NOTHING_CHANCE)) return this.#nothing(first)
    if (what < 0.45) await this.#read(first, count)
    else if (what < 0.9) await this.#write(first, count)
    else if (what < 0.94) await this.#clear(first, count)
    else await this.#flush()
  }

  async #nothing(first: number): Promise<void> {
    const device = this.#connection
    const offset = (first * SECTOR_BYTES) as ByteOffset
    await this.#waitFor(device.read(offset, Buffer.alloc(0)))
    await this.#waitFor(device.trim({ offset, length: 0 as ByteLength, durable: false }))
  }

  async #waitFor<Result>(answer: Promise<Result>): Promise<Result> {
    const waiting = { since: this.#options.world.now }
    this.#waiting.add(waiting)
    try {
      const result = await answer
      this.#waiting.delete(waiting)
      return result
    } catch (error) {
      // It may be under way still, and it never hears of that.
      if (this.#disconnected) return new Promise<never>(() => undefined)
      this.#waiting.delete(waiting)
      throw error
    }
  }

  /**
   * Between an answer and the socket lie microseconds, in which a process can be stopped for long. Whoever has it asks once
   * more then whether it may be told, and for as long as it may not. To all checkers it was given when the mirror gave it.
   */
  async #onItsWay(): Promise<void> {
    const { random, process, device, answered } = this.#options
    if (!random.chance(HELD_UP_CHANCE)) return
    const pause = async (ms: number): Promise<void> =>
      new Promise(resolve => process.clock.after(ms as Millis, resolve))
    await pause(random.between(0, HELD_UP_MS))
    while (!this.#abandoned && !device.mayAnswer()) await pause(LOOK_MS)
    // Deactivated, or gone: its connection is over.
    if (device.current === null || this.#abandoned) return new Promise<never>(() => undefined)
    answered(null)
  }

  async #read(first: number, count: number): Promise<void> {
    const { world, history, durability, problem, cannotRead, log } = this.#options
    const device = this.#connection
    const invokedAt = world.now
    const into = Buffer.alloc(count * SECTOR_BYTES)
    const offset = (first * SECTOR_BYTES) as ByteOffset
    const later = async (): Promise<Uint8Array | null> =>
      this.#waitFor(device.read(offset, into)).catch((error: unknown) => {
        if (!hasCode(error, 'UNREADABLE') || !cannotRead(first, first + count)) throw error
        log(`sectors ${first}+${count} cannot be read`)
        return null
      })
    const bytes = device.readAtOnce(offset, into) ? into : await later()
    if (bytes === null) return
    this.#options.answered(bytes)
    const seen = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let i = 0; i < count; i++) {
      const at = i * SECTOR_BYTES
      const value = seen.readUInt32LE(at)
      if (history.exempt.has(first + i)) continue
      const sector = value === ZEROS ? 0 : seen.readUInt32LE(at + 4)
      if (seen.readUInt32LE(at + SECTOR_BYTES - 4) !== value || (value !== ZEROS && sector !== first + i)) {
        problem(`P1: sector ${first + i} is torn or not its own`)
      }
      const tenant = this.#tenant
      const entry = {
        kind: 'read' as const,
        sector: first + i,
        value,
        invokedAt,
        returnedAt: world.now,
        tenant,
      }
      const wrong = history.read(entry)
      if (wrong !== null) problem(wrong)
      durability.read(entry)
    }
    await this.#onItsWay()
    if (world.now - invokedAt > SENT_AGAIN_MS) this.#reused.push({ bytes: seen.fill(REUSED), first })
  }

  async #write(first: number, count: number, part = 0.2): Promise<void> {
    const { random, nextValue } = this.#options
    const device = this.#connection
    const value = nextValue()
    const data = Buffer.alloc(count * SECTOR_BYTES)
    for (let i = 0; i < count; i++) {
      data.writeUInt32LE(value, i * SECTOR_BYTES)
      data.writeUInt32LE(first + i, i * SECTOR_BYTES + 4)
      data.writeUInt32LE(value, (i + 1) * SECTOR_BYTES - 4)
    }
    const durable = !this.#flushes || random.chance(part)
    await this.#change(value, first, count, durable, async offset => device.write({ offset, data, durable }))
  }

  async #clear(first: number, count: number): Promise<void> {
    const { random } = this.#options
    const device = this.#connection
    const durable = !this.#flushes
    const length = (count * SECTOR_BYTES) as ByteLength
    const trims = random.chance(0.5)
    await this.#change(ZEROS, first, count, durable, async offset =>
      trims
        ? device.trim({ offset, length, durable })
        : device.zero({ offset, length, durable, keepAllocated: false })
    )
  }

  async #change(
    value: number,
    first: number,
    count: number,
    durable: boolean,
    act: (offset: ByteOffset) => Promise<void>
  ): Promise<void> {
    const { world, history, durability, problem, log } = this.#options
    const entry: WriteEntry = {
      kind: 'write',
      value,
      firstSector: first,
      endSector: first + count,
      invokedAt: world.now,
      tenant: this.#tenant,
      durable,
      acknowledgedAt: Infinity,
      durableAt: Infinity,
      holders: [],
      mayBeLost: false,
    }
    history.write(entry)
    durability.begun(entry)
    log(`write ${value} to sectors ${first}+${count}${durable ? ' durably' : ''}`)
    const range = { first, end: first + count }
    this.#changing.add(range)
    await this.#waitFor(act((first * SECTOR_BYTES) as ByteOffset))
    this.#options.answered(null)
    this.#changing.delete(range)
    log(`write ${value} acknowledged`)
    const wrong = history.acknowledged(entry, world.now)
    if (wrong !== null) problem(wrong)
    durability.acknowledged(entry)
    await this.#onItsWay()
  }

  async #flush(): Promise<void> {
    if (!this.#flushes) return
    const { world, durability, problem } = this.#options
    const device = this.#connection
    const invokedAt = world.now
    try {
      await this.#waitFor(device.flush())
      this.#options.answered(null)
      this.#toBeTold = false
      durability.flushed(invokedAt, this.#tenant)
    } catch (error) {
      if (!hasCode(error, 'WRITES_LOST')) throw error
      if (!durability.flushFailed(this.#tenant) && !this.#toBeTold) {
        problem('P5: a flush failed although no writes can be lost')
      }
      this.#toBeTold = false
    }
  }
}
