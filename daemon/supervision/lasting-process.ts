/**
 * A process that belongs to the host and not to its supervisor: an upgrade or a crash of the supervisor must not end it.
 * So it runs on when the supervisor ends, and the next one finds it by a note of its pid and start time, or, when the
 * supervisor was killed between start and note, by its arguments.
 */
import { renameSync, writeFileSync } from 'node:fs'
import { copyFile, readFile, stat, truncate } from 'node:fs/promises'
import { z } from 'zod'
import { reasonOf } from '../../core/errors.ts'
import {
  type ProcessHandle,
  conditionOf,
  processesWithArguments,
  signal,
  waitForCondition,
} from './process-handle.ts'
import { type Run, bootId, runSchema } from './run.ts'
import { type ProgramCommand, type RestartPauses, Supervised } from './supervised.ts'

/** A killed process is gone at once, but for a stuck disk. */
const KILL_MS = 10_000
/** Warnings of some days in bad times; there are two files. */
const LOG_BYTES_MAX = 4 * 1024 * 1024
const LOG_LOOK_MS = 60_000

const noteSchema = z.strictObject({ version: z.literal(1), boot: z.string(), run: runSchema.nullable() })

export interface LastingProcessOptions {
  readonly command: Omit<ProgramCommand, 'arguments'>
  /** Arguments that this program of this host has, and no other process. */
  readonly mark: readonly string[]
  readonly noteFile: string
  readonly pauses: RestartPauses
  /** What it may take to end in order, in milliseconds. */
  readonly stopMs: number
  /** A sentence about the process: started, ended, started again. */
  readonly log: (text: string) => void
}

export class LastingProcess {
  readonly #options: LastingProcessOptions
  #supervised: Supervised | null = null
  #arguments: readonly string[] = []
  #logTimer: NodeJS.Timeout | undefined

  constructor(options: LastingProcessOptions) {
    this.#options = options
  }

  /** Whether this looks after a process: it runs, or will be started again. */
  get started(): boolean {
    return this.#supervised !== null
  }

  /** Of the process, or null while it is down. */
  get pid(): number | null {
    return this.#supervised?.run?.pid ?? null
  }

  /** What it is started with when it ends. */
  get arguments(): readonly string[] {
    return this.#arguments
  }

  /**
   * Looks after the process that an earlier supervisor has left, if there is one. Several are ended.
   * @param words arguments to start it with when it ends
   * @returns whether there is
   */
  async adopt(words: readonly string[]): Promise<boolean> {
    if (this.#supervised !== null) return true
    const left = await this.leftRunning()
    const [only] = left
    if (only === undefined) return false
    if (left.length > 1) {
      // Each may have taken from the other what it listens on.
      await this.#kill(left)
      return false
    }
    this.#supervise(words, { restarts: 0, ...only })
    return true
  }

  /** Starts the process; it is started again whenever it ends. Only for one that neither runs nor is looked after. */
  start(words: readonly string[]): void {
    this.#supervise(words, null)
  }

  /** Ends the process in order, or by force when that takes too long; it is not started again. */
  async stop(): Promise<void> {
    // First, so that it is not started again while this looks; the note still tells which process it is.
    this.release()
    const left = await this.leftRunning()
    for (const handle of left) {
      signal(handle, 'SIGCONT')
      signal(handle, 'SIGTERM')
    }
    await this.#kill(await waitForCondition(left, 'down', this.#options.stopMs))
    this.#writeNote(null)
  }

  /** Looks after the process no longer; it goes on. */
  release(): void {
    this.#supervised?.release()
    this.#supervised = null
    clearTimeout(this.#logTimer)
  }

  /** Living processes of this kind; more than one only after a supervisor was killed in a bad moment. */
  async leftRunning(): Promise<ProcessHandle[]> {
    const own = this.#supervised?.run ?? null
    const noted = own ?? (await this.#noted())
    const found = await processesWithArguments(...this.#options.mark)
    const all = found.map(({ pid, startTicks }) => ({ pid, startTicks }))
    if (noted !== null && conditionOf(noted) !== 'down' && !all.some(({ pid }) => pid === noted.pid)) {
      all.push({ pid: noted.pid, startTicks: noted.startTicks })
    }
    return all
  }

  async #kill(handles: readonly ProcessHandle[]): Promise<void> {
    for (const handle of handles) signal(handle, 'SIGKILL')
    const [immortal] = await waitForCondition(handles, 'down', KILL_MS)
    if (immortal === undefined) return
    throw new Error(`${this.#options.command.name} (pid ${immortal.pid}) does not end`)
  }

  #supervise(words: readonly string[], earlier: Run | null): void {
    const { command, pauses, log } = this.#options
    this.#arguments = words
    const supervised: Supervised = new Supervised({ ...command, arguments: words }, pauses, what => {
      log(what)
      if (this.#supervised === supervised) this.#writeNote(supervised.run)
    })
    this.#supervised = supervised
    supervised.start(earlier)
    this.#watchLog()
  }

  async #noted(): Promise<Run | null> {
    try {
      const note = noteSchema.parse(JSON.parse(await readFile(this.#options.noteFile, 'utf8')))
      return note.boot === bootId() ? note.run : null
    } catch {
      // Missing or damaged: then the process is found by its arguments.
      return null
    }
  }

  /** At once, not later: the shorter the time without a note, the better. A power cut makes it void anyway. */
  #writeNote(run: Run | null): void {
    const { noteFile, command, log } = this.#options
    try {
      writeFileSync(`${noteFile}.new`, `${JSON.stringify({ version: 1, boot: bootId(), run })}\n`, {
        mode: 0o600,
      })
      renameSync(`${noteFile}.new`, noteFile)
    } catch (error) {
      log(`the note of ${command.name}'s process could not be written: ${reasonOf(error)}`)
    }
  }

  #watchLog(): void {
    const { command, log } = this.#options
    clearTimeout(this.#logTimer)
    this.#logTimer = setTimeout(() => {
      void shortenLog(command.logFile)
        .catch((error: unknown) => log(`the log of ${command.name} is not shortened: ${reasonOf(error)}`))
        .finally(() => {
          if (this.#supervised !== null) this.#watchLog()
        })
    }, LOG_LOOK_MS)
    this.#logTimer.unref()
  }
}

/** Keeps what a log holds under another name, and empties it under its writer, which adds at the end wherever that is. */
export async function shortenLog(path: string, bytesMax = LOG_BYTES_MAX): Promise<void> {
  const { size } = await stat(path)
  if (size <= bytesMax) return
  await copyFile(path, `${path}.1`)
  await truncate(path, 0)
}
