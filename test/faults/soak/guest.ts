import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'

/** What uses a volume and knows what it must hold, whichever host serves it. */
export interface Guest {
  /**
   * Starts to work, or goes on where the last session ended, and checks what that left.
   *
   * @param powerLost every replica has lost power: what was not durable may be gone
   */
  begin(address: NbdAddress, powerLost: boolean): Promise<void>
  /** Resolves when some more has been done. @throws Error when that takes longer than a time in milliseconds */
  progress(deadlineMs: number): Promise<void>
  /** Measures the longest wait anew. */
  mark(): void
  /** The longest wait since, in milliseconds; null when this guest does not know. */
  longestWaitMs(): Promise<number | null>
  /** Its connection is about to be lost, which then is no fault. */
  doomed(): void
  /** Dies with its host. Resolves when nothing of it uses the volume any more. */
  kill(): Promise<void>
  /** Ends in order. */
  stop(): Promise<void>
  /** Ends by checking everything that it knows, read through this address. Nothing runs before. */
  checkAll(address: NbdAddress, powerLost: boolean): Promise<void>
  /** What went wrong since this was asked last, as sentences. */
  takeFaults(): string[]
  readonly work: GuestWork
}

/** What a guest has done so far. */
export interface GuestWork {
  readonly writes: number
  readonly bytesVerified: number
}
