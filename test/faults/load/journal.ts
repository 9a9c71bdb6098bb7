/**
 * What a load's client saw, on disk: every write before it is sent, every answer, every new session, and what
 * reads decided. From it alone a later process knows what the volume may hold.
 */
import { appendFileSync, closeSync, fdatasync, openSync, readFileSync, writeSync } from 'node:fs'
import { SectorModel } from './sector-model.ts'

const KIND = { issue: 1, acknowledge: 2, reopen: 3, observe: 4, flush: 5, flushed: 6, powerLost: 7 } as const
const RECORD_WORDS = 4
const RECORD_BYTES = RECORD_WORDS * 4
/** Set in an issue's number of sectors when the write is of zeros. */
const ZEROS_FLAG = 1 << 30

export class Journal {
  readonly #file: number
  #pending: number[] = []
  #pendingAcknowledgements = 0
  #writtenAcknowledgements = 0
  #durableAcknowledgements = 0
  #syncing = false
  #failure: Error | null = null

  constructor(path: string) {
    this.#file = openSync(path, 'a', 0o600)
  }

  /** Acknowledgements that a power cut could not take from the journal any more. */
  get durableAcknowledgements(): number {
    return this.#durableAcknowledgements
  }

  issue(id: number, firstSector: number, sectors: number, zeros: boolean): void {
    this.#pending.push(KIND.issue, id, firstSector, zeros ? sectors | ZEROS_FLAG : sectors)
  }

  acknowledge(id: number): void {
    this.#pending.push(KIND.acknowledge, id, 0, 0)
    this.#pendingAcknowledgements += 1
  }

  reopen(): void {
    this.#pending.push(KIND.reopen, 0, 0, 0)
  }

  observe(sector: number, write: number): void {
    this.#pending.push(KIND.observe, sector, write, 0)
  }

  /** A flush is about to be sent. */
  flush(id: number): void {
    this.#pending.push(KIND.flush, id, 0, 0)
  }

  flushed(id: number): void {
    this.#pending.push(KIND.flushed, id, 0, 0)
  }

  /**
   * Hands what was noted to the kernel, where the end of this process cannot reach it, and starts to make it
   * durable; syncs that are due at the same time are one.
   */
  write(): void {
    if (this.#failure !== null) throw this.#failure
    if (this.#pending.length > 0) {
      writeSync(this.#file, Int32Array.from(this.#pending))
      this.#pending = []
      this.#writtenAcknowledgements += this.#pendingAcknowledgements
      this.#pendingAcknowledgements = 0
    }
    if (!this.#syncing && this.#durableAcknowledgements < this.#writtenAcknowledgements) {
      this.#syncing = true
      const covered = this.#writtenAcknowledgements
      fdatasync(this.#file, error => {
        this.#syncing = false
        if (error === null) this.#durableAcknowledgements = covered
        else this.#failure = error
      })
    }
  }

  /** Writes what is left, makes all of it durable and closes. */
  async close(): Promise<void> {
    this.write()
    while (this.#syncing) await new Promise(resolve => setImmediate(resolve))
    await new Promise<void>((resolve, reject) => {
      fdatasync(this.#file, error => (error === null ? resolve() : reject(error)))
    })
    this.#durableAcknowledgements = this.#writtenAcknowledgements
    closeSync(this.#file)
  }
}

/** Notes that every replica lost power since the last session, so that writes may be lost that were not durable. */
export function notePowerLoss(path: string): void {
  appendFileSync(path, new Uint8Array(Int32Array.of(KIND.powerLost, 0, 0, 0).buffer))
}

/** Makes the model of a volume anew from a journal, which may be missing. @param sectors size of the volume */
export function modelFromJournal(path: string, sectors: number): SectorModel {
  const model = new SectorModel(sectors)
  const words = readJournal(path)
  const lost = lostWithPower(words)
  for (let at = 0; at < words.length; at += RECORD_WORDS) {
    if (lost.has(at)) continue
    const [kind, first, second, third] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!]
    if (kind === KIND.issue) {
      const id = model.issue(second, third & ~ZEROS_FLAG, (third & ZEROS_FLAG) !== 0)
      if (id !== first) throw new Error(`journal ${path}: write ${first} stands where ${id} was due`)
    } else if (kind === KIND.acknowledge) model.acknowledge(first)
    else if (kind === KIND.reopen || kind === KIND.powerLost) model.reopen()
    else if (kind === KIND.observe) model.replayObservation({ sector: first, write: second })
    else if (kind !== KIND.flush && kind !== KIND.flushed) {
      throw new Error(`journal ${path}: record ${at / RECORD_WORDS} has the unknown kind ${kind}`)
    }
  }
  return model
}

/** The words of all whole records. */
function readJournal(path: string): Int32Array {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return new Int32Array()
    throw error
  }
  const words = new Int32Array(Math.floor(bytes.length / RECORD_BYTES) * RECORD_WORDS)
  return words.map((_, index) => bytes.readInt32LE(index * 4))
}

/**
 * What the client was told and cannot rely on any more. An acknowledgement holds through a loss of power when a flush
 * was sent after it, and answered, or when its session had not sent any: until then every write is durable. One that
 * does not hold is as none: the write has happened, or not.
 *
 * @returns where acknowledgements, and what reads decided, stand that are to be passed over
 */
function lostWithPower(words: Int32Array): ReadonlySet<number> {
  const lost = new Set<number>()
  const sentAt = new Map<number, number>()
  let asks = false
  let durableTo = -1
  let volatile: number[] = []
  for (let at = 0; at < words.length; at += RECORD_WORDS) {
    const [kind, first] = [words[at]!, words[at + 1]!]
    if (kind === KIND.reopen) asks = false
    else if (kind === KIND.flush) {
      asks = true
      sentAt.set(first, at)
    } else if (kind === KIND.flushed) {
      durableTo = Math.max(durableTo, sentAt.get(first) ?? -1)
      volatile = volatile.filter(other => other > durableTo)
    } else if (kind === KIND.observe || (kind === KIND.acknowledge && asks)) volatile.push(at)
    else if (kind === KIND.powerLost) {
      for (const other of volatile) lost.add(other)
      volatile = []
    }
  }
  return lost
}
