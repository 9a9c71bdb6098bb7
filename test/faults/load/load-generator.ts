/**
 * A guest that checks what it reads: keeps many writes in flight on one volume, on purpose also to the same
 * blocks at once, reads in between and judges every answer, and writes down what it was told. A program of its
 * own; its driver is `load-client.ts`.
 *
 *     node --import tsx load-generator.ts OPTIONS-AS-JSON
 */
import { hasCode } from '../../../core/errors.ts'
import { byteLength, byteOffset } from '../../../core/units.ts'
import { type BlockDevice } from '../../../datapath/block-device.ts'
import { connectDisk } from '../../../cli/lab/guest-disk.ts'
import { signal } from '../../../daemon/supervision/process-handle.ts'
import { Journal, modelFromJournal } from './journal.ts'
import { type LoadCommand, type LoadMessage, type LoadOptions, type LoadReport } from './load-protocol.ts'
import { SECTOR_BYTES, fillSectors, identifySector } from './sector-content.ts'
import { type Mismatch, type SectorModel } from './sector-model.ts'

/** Longest request, 256 KiB. */
const SECTORS_MAX = 512
/** Half of all requests go to so many sectors at the start (256 KiB), so that they overlap all the time. */
const HOT_SECTORS = 512
/** One write in so many is of zeros. */
const ZEROS_ONE_IN = 16
/** Whole-volume check: requests at once. */
const CHECK_DEPTH = 8
const KEPT_MAX = 5

/** Mulberry32: a small seeded generator, so that a failing run's requests can be repeated. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed | 0
  return below => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below)
  }
}

interface Range {
  readonly firstSector: number
  readonly sectors: number
}

class LoadGenerator {
  readonly #options: LoadOptions
  readonly #device: BlockDevice
  readonly #model: SectorModel
  readonly #journal: Journal
  readonly #random: (below: number) => number
  /** Ranges and send times of writes in flight, by id. */
  readonly #writes = new Map<number, Range & { readonly sentAt: number }>()
  readonly #reads = new Set<{ readonly sentAt: number }>()
  #signal: Extract<LoadCommand, { kind: 'signal' }> | null = null
  /** False while the volume is only being checked. */
  #running = false
  #stopping = false
  #turnScheduled = false
  #sinceFlush = 0
  #flushes = 0
  #ended: () => void = () => undefined

  #issued = 0
  #acknowledged = 0
  #overlapping = 0
  #readsVerified = 0
  #bytesVerified = 0
  #longestStallMs = 0
  #longestSilenceMs = 0
  #answeredAt = performance.now()
  #connectionLost = false
  #inFlightAtLoss = 0
  readonly #errors: string[] = []
  readonly #mismatches: Mismatch[] = []
  #mismatchCount = 0

  constructor(options: LoadOptions, device: BlockDevice, model: SectorModel) {
    this.#options = options
    this.#device = device
    this.#model = model
    this.#journal = new Journal(options.journal)
    this.#random = randomFrom(options.seed)
    if (model.nextWrite > 1) {
      model.reopen()
      this.#journal.reopen()
    }
  }

  /** Reads the whole volume. */
  async check(): Promise<void> {
    let next = 0
    const worker = async (): Promise<void> => {
      while (next < this.#model.sectors && !this.#connectionLost) {
        const firstSector = next
        next += SECTORS_MAX
        await this.#read({ firstSector, sectors: Math.min(SECTORS_MAX, this.#model.sectors - firstSector) })
      }
    }
    await Promise.all(Array.from({ length: CHECK_DEPTH }, worker))
    this.#journal.write()
  }

  /** Resolves when the load has been stopped and answered, or the connection is lost. */
  async run(): Promise<void> {
    await new Promise<void>(resolve => {
      this.#ended = resolve
      this.#running = true
      this.#schedule()
    })
  }

  async close(): Promise<void> {
    if (!this.#connectionLost) {
      await this.#device.flush().catch((error: unknown) => this.#failed(error))
    }
    await this.#device.close().catch(() => undefined)
    await this.#journal.close()
  }

  command(command: LoadCommand): void {
    if (command.kind === 'signal') this.#signal = command
    else if (command.kind === 'mark') this.#mark()
    else if (command.kind === 'stop') this.#stopping = true
    else send({ kind: 'report', report: this.report() })
    this.#schedule()
  }

  report(): LoadReport {
    const now = performance.now()
    const waiting = [...this.#writes.values(), ...this.#reads].map(({ sentAt }) => now - sentAt)
    return {
      writesIssued: this.#issued,
      writesAcknowledged: this.#acknowledged,
      acknowledgementsDurable: this.#journal.durableAcknowledgements,
      writesOverlapping: this.#overlapping,
      readsVerified: this.#readsVerified,
      bytesVerified: this.#bytesVerified,
      writesInFlight: this.#writes.size,
      longestStallMs: Math.round(Math.max(this.#longestStallMs, ...waiting)),
      longestSilenceMs: Math.round(
        waiting.length === 0
          ? this.#longestSilenceMs
          : Math.max(this.#longestSilenceMs, now - this.#answeredAt)
      ),
      connectionLost: this.#connectionLost,
      writesInFlightAtLoss: this.#inFlightAtLoss,
      errors: this.#errors,
      mismatches: this.#mismatches,
      mismatchCount: this.#mismatchCount,
    }
  }

  #schedule(): void {
    if (this.#running && !this.#turnScheduled) {
      this.#turnScheduled = true
      setImmediate(() => {
        this.#turnScheduled = false
        this.#turn()
      })
    }
  }

  #turn(): void {
    // Before anything new is sent: all writes in flight now have been handed to the kernel in an earlier turn.
    if (this.#signal !== null && this.#writes.size >= this.#signal.writesInFlightMin) {
      for (const handle of this.#signal.processes) signal(handle, this.#signal.name)
      this.#signal = null
      send({ kind: 'signalled', writesInFlight: this.#writes.size })
    }
    const idle = this.#writes.size === 0 && this.#reads.size === 0
    if (this.#connectionLost || this.#errors.length > 0 || (this.#stopping && idle)) {
      this.#journal.write()
      this.#ended()
      return
    }
    if (this.#stopping) return
    this.#sendWrites()
    while (this.#reads.size < this.#options.reads) void this.#read(this.#range())
  }

  #range(): Range {
    // Mostly small ones, as guests do; one in eight up to the longest.
    const sectors = 1 + this.#random(this.#random(8) === 0 ? SECTORS_MAX : 16)
    const within = this.#random(2) === 0 ? HOT_SECTORS : this.#model.sectors
    return { firstSector: this.#random(Math.max(1, within - sectors + 1)), sectors }
  }

  #sendWrites(): void {
    const due: { id: number; range: Range; zeros: boolean }[] = []
    for (let count = this.#writes.size; count < this.#options.writes; count++) {
      const range = this.#range()
      const zeros = this.#random(ZEROS_ONE_IN) === 0
      const id = this.#model.issue(range.firstSector, range.sectors, zeros)
      this.#journal.issue(id, range.firstSector, range.sectors, zeros)
      due.push({ id, range, zeros })
    }
    this.#journal.write()
    for (const { id, range, zeros } of due) {
      if ([...this.#writes.values()].some(other => overlap(other, range))) this.#overlapping += 1
      this.#writes.set(id, { ...range, sentAt: performance.now() })
      this.#issued += 1
      void this.#write(id, range, zeros)
    }
    this.#sinceFlush += due.length
    if (this.#options.flushEvery > 0 && this.#sinceFlush >= this.#options.flushEvery) {
      this.#sinceFlush = 0
      void this.#flush()
    }
  }

  async #flush(): Promise<void> {
    const id = ++this.#flushes
    this.#journal.flush(id)
    try {
      await this.#device.flush()
      this.#journal.flushed(id)
    } catch (error) {
      this.#failed(error)
    }
  }

  async #write(id: number, { firstSector, sectors }: Range, zeros: boolean): Promise<void> {
    const offset = byteOffset(firstSector * SECTOR_BYTES)
    try {
      if (zeros) {
        const length = byteLength(sectors * SECTOR_BYTES)
        await this.#device.zero({ offset, length, durable: false, keepAllocated: id % 2 === 0 })
      } else {
        const words = new Int32Array((sectors * SECTOR_BYTES) / 4)
        fillSectors(words, id, firstSector)
        await this.#device.write({ offset, data: new Uint8Array(words.buffer), durable: false })
      }
    } catch (error) {
      this.#failed(error)
      return
    }
    const { sentAt } = this.#writes.get(id)!
    this.#answered(sentAt)
    this.#writes.delete(id)
    this.#model.acknowledge(id)
    this.#journal.acknowledge(id)
    this.#acknowledged += 1
    this.#schedule()
  }

  async #read(range: Range): Promise<void> {
    const words = new Int32Array((range.sectors * SECTOR_BYTES) / 4)
    const entry = { sentAt: performance.now() }
    this.#reads.add(entry)
    const read = this.#model.startRead(range.firstSector, range.sectors)
    try {
      await this.#device.read(byteOffset(range.firstSector * SECTOR_BYTES), new Uint8Array(words.buffer))
    } catch (error) {
      this.#failed(error)
      return
    }
    this.#answered(entry.sentAt)
    this.#reads.delete(entry)
    const wrong = this.#model.endRead(
      read,
      sector => identifySector(words, ((sector - range.firstSector) * SECTOR_BYTES) / 4, sector),
      ({ sector, write }) => this.#journal.observe(sector, write)
    )
    this.#mismatchCount += wrong.length
    this.#mismatches.push(...wrong.slice(0, KEPT_MAX - this.#mismatches.length))
    this.#readsVerified += 1
    this.#bytesVerified += range.sectors * SECTOR_BYTES
    this.#schedule()
  }

  #mark(): void {
    this.#longestStallMs = 0
    this.#longestSilenceMs = 0
    this.#answeredAt = performance.now()
  }

  #answered(sentAt: number): void {
    const now = performance.now()
    this.#longestStallMs = Math.max(this.#longestStallMs, now - sentAt)
    this.#longestSilenceMs = Math.max(this.#longestSilenceMs, now - this.#answeredAt)
    this.#answeredAt = now
  }

  /** An error answer is a fault of the volume; a lost connection may be what the driver intends. */
  #failed(error: unknown): void {
    if (!this.#connectionLost && isConnectionLost(error)) {
      this.#connectionLost = true
      this.#inFlightAtLoss = this.#writes.size
    }
    if (!isConnectionLost(error) && this.#errors.length < KEPT_MAX) this.#errors.push(String(error))
    this.#schedule()
  }
}

const overlap = (a: Range, b: Range): boolean =>
  a.firstSector < b.firstSector + b.sectors && b.firstSector < a.firstSector + a.sectors

function send(message: LoadMessage): void {
  process.send?.(message)
}

/** An error answer has a code of its own; this one says that no answer will come. */
const isConnectionLost = (error: unknown): boolean => hasCode(error, 'PEER_UNREACHABLE')

async function main(): Promise<void> {
  const options = JSON.parse(process.argv[2] ?? '') as LoadOptions
  const device = await connectDisk(options)
  const model = modelFromJournal(options.journal, device.size / SECTOR_BYTES)
  const generator = new LoadGenerator(options, device, model)
  process.on('message', (command: LoadCommand) => generator.command(command))
  if (model.nextWrite > 1) await generator.check()
  if (options.checkOnly !== true) {
    send({ kind: 'started', report: generator.report() })
    await generator.run()
  }
  await generator.close()
  send({ kind: 'ended', report: generator.report() })
  process.disconnect()
}

// The driver is gone: nobody wants the load any more.
process.once('disconnect', () => process.exit(0))
await main()
