import { type ChildProcess, spawn } from 'node:child_process'
import { openSync, closeSync } from 'node:fs'
import { reasonOf } from '../../core/errors.ts'
import { conditionOf, handleOf } from './process-handle.ts'
import { type Run } from './run.ts'

/** A program that ran this long had started well, so its next death is not counted as the same trouble. */
const STEADY_MS = 5_000
/** Between two looks at an adopted process: the kernel tells only the parent when one ends. */
const ADOPTED_POLL_MS = 100

export interface ProgramCommand {
  /** As it is called in sentences for the log. */
  readonly name: string
  /** A path, or a name to be found in PATH. */
  readonly program: string
  readonly arguments: readonly string[]
  /** Takes its standard output and standard error; added to. */
  readonly logFile: string
  /** It works in; absent: the root. */
  readonly directory?: string
  /** Absent: that of this process. */
  readonly environment?: Readonly<Record<string, string | undefined>>
  /** Waited for before each start; an error is a failed start. */
  readonly prepare?: () => Promise<void>
}

/** Before a program that died is started again; doubled with each death that comes soon after a start. */
export interface RestartPauses {
  readonly firstMs: number
  readonly longestMs: number
}

/**
 * Keeps one program running: starts it, or adopts the one that an earlier supervisor left, and starts it again
 * whenever it ends.
 */
export class Supervised {
  readonly name: string
  readonly #command: ProgramCommand
  readonly #pauses: RestartPauses
  readonly #changed: (what: string) => void
  #run: Run | null = null
  #child: ChildProcess | null = null
  #restarts = 0
  #startedAt = 0
  /** Deaths in a row that came soon after the start. */
  #quickDeaths = 0
  #timer: NodeJS.Timeout | undefined
  #stopping = false

  /** @param changed called after every change of `run`, with a sentence for the log */
  constructor(command: ProgramCommand, pauses: RestartPauses, changed: (what: string) => void) {
    this.name = command.name
    this.#command = command
    this.#pauses = pauses
    this.#changed = changed
  }

  /** The living process, or null between two runs. */
  get run(): Run | null {
    return this.#run
  }

  /** @param earlier what the pid file says about this program, from before this supervisor */
  start(earlier: Run | null): void {
    if (earlier !== null && conditionOf(earlier) !== 'down') {
      this.#restarts = earlier.restarts
      this.#run = earlier
      this.#watchAdopted(earlier)
      this.#changed(`${this.name} runs as ${earlier.pid} since before this supervisor`)
      return
    }
    this.#begin()
  }

  /** From here on the program is not started again. */
  stopRestarting(): void {
    this.#stopping = true
    clearTimeout(this.#timer)
  }

  /** Looks after the program no longer, and no longer keeps this process alive for it; the program goes on. */
  release(): void {
    this.stopRestarting()
    this.#child?.unref()
  }

  #begin(): void {
    const { prepare } = this.#command
    if (prepare === undefined) {
      this.#spawn()
      return
    }
    this.#startedAt = performance.now()
    prepare().then(
      () => {
        if (!this.#stopping) this.#spawn()
      },
      (error: unknown) => {
        if (!this.#stopping) this.#ended(`could not be started: ${reasonOf(error)}`)
      }
    )
  }

  #spawn(): void {
    this.#startedAt = performance.now()
    let child: ChildProcess
    try {
      child = this.#launch()
    } catch (error) {
      this.#ended(`could not be started: ${reasonOf(error)}`)
      return
    }
    this.#child = child
    child.once('error', error => {
      if (child.pid === undefined) {
        this.#ended(`could not be started: ${error.message}`)
      }
    })
    child.once('exit', (code, signalName) => {
      this.#ended(signalName === null ? `ended with code ${code ?? '?'}` : `was ended by ${signalName}`)
    })
    const handle = child.pid === undefined ? null : handleOf(child.pid)
    if (handle !== null) {
      this.#run = { ...handle, restarts: this.#restarts }
      this.#changed(`${this.name} started as ${handle.pid}`)
    }
  }

  /** @throws Error when the log cannot be opened */
  #launch(): ChildProcess {
    const { program, arguments: words, logFile, directory, environment } = this.#command
    // The log is a file of its own, not a pipe: the program must outlive this supervisor.
    const log = openSync(logFile, 'a', 0o600)
    // What a program makes is root's alone, also when it does not think of that itself.
    const usual = process.umask(0o077)
    try {
      return spawn(program, words, {
        cwd: directory ?? '/',
        stdio: ['ignore', log, log],
        detached: true,
        env: environment ?? process.env,
      })
    } finally {
      closeSync(log)
      process.umask(usual)
    }
  }

  #watchAdopted(run: Run): void {
    this.#timer = setTimeout(() => {
      if (conditionOf(run) === 'down') {
        this.#ended('ended (adopted, so its reason is not known)')
      } else {
        this.#watchAdopted(run)
      }
    }, ADOPTED_POLL_MS)
  }

  #ended(how: string): void {
    const ranMs = performance.now() - this.#startedAt
    this.#run = null
    this.#child = null
    if (this.#stopping) {
      this.#changed(`${this.name} ${how}`)
      return
    }
    this.#quickDeaths = ranMs >= STEADY_MS ? 0 : this.#quickDeaths + 1
    const { firstMs, longestMs } = this.#pauses
    const delayMs = Math.min(firstMs * 2 ** Math.max(0, this.#quickDeaths - 1), longestMs)
    this.#restarts += 1
    this.#changed(`${this.name} ${how}; it is started again in ${delayMs} ms`)
    this.#timer = setTimeout(() => this.#begin(), delayMs)
  }
}
