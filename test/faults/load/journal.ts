/**
 * What a load's client saw, on disk: every write before it is sent, every answer, every new session, and what
 * reads decided. From it alone a later process knows what the volume may hold.
 */
import { closeSync, fdatasync, openSync, readFileSync, writeSync } from 'node:fs'
import { SectorModel } from './sector-model.ts'

const KIND = { issue: 1, acknowledge: 2, reopen: 3, observe: 4 } as const
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

/** Makes the model of a volume anew from a journal, which may be missing. @param sectors size of the volume */
export function modelFromJournal(path: string, sectors: number): SectorModel {
  const model = new SectorModel(sectors)
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return model
    throw error
  }
  const count = Math.floor(bytes.length / RECORD_BYTES)
  for (let record = 0; record < count; record++) {
    const [kind, first, second, third] = [0, 4, 8, 12].map(at =>
      bytes.readInt32LE(record * RECORD_BYTES + at)
    )
    if (kind === KIND.issue) {
      const id = model.issue(second!, third! & ~ZEROS_FLAG, (third! & ZEROS_FLAG) !== 0)
      if (id !== first) throw new Error(`journal ${path}: write ${first} stands where ${id} was due`)
    } else if (kind === KIND.acknowledge) model.acknowledge(first!)
    else if (kind === KIND.reopen) model.reopen()
    else if (kind === KIND.observe) model.replayObservation({ sector: first!, write: second! })
    else throw new Error(`journal ${path}: record ${record} has the unknown kind ${kind}`)
  }
  return model
}
