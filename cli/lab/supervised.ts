import { spawn } from 'node:child_process'
import { openSync, closeSync } from 'node:fs'
import { type Run } from './pid-file.ts'
import { conditionOf, handleOf } from './process-handle.ts'

/** Pause before a program that died is started again, in milliseconds, as systemd's default RestartSec. */
const RESTART_DELAY_MS = 100
/** Longest pause for a program that keeps dying: long enough not to burn a core, short enough for a drill. */
const RESTART_DELAY_MAX_MS = 2_000
/** A program that ran this long had started well, so its next death is not counted as the same trouble. */
const STEADY_MS = 5_000
/** Between two looks at an adopted process: the kernel tells only the parent when one ends. */
const ADOPTED_POLL_MS = 100

export interface ProgramCommand {
  readonly name: string
  /** Arguments for Node: the program's file first. */
  readonly arguments: readonly string[]
  /** Takes its standard output and standard error. */
  readonly logFile: string
}

/**
 * Keeps one program running: starts it, or adopts the one that an earlier supervisor left, and starts it again
 * whenever it ends.
 */
export class Supervised {
  readonly name: string
  readonly #command: ProgramCommand
  readonly #changed: (what: string) => void
  #run: Run | null = null
  #restarts = 0
  #startedAt = 0
  /** Deaths in a row that came soon after the start. */
  #quickDeaths = 0
  #timer: NodeJS.Timeout | undefined
  #stopping = false

  /** @param changed called after every change of `run`, with a sentence for the log */
  constructor(command: ProgramCommand, changed: (what: string) => void) {
    this.name = command.name
    this.#command = command
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
    this.#spawn()
  }

  /** From here on the program is not started again. */
  stopRestarting(): void {
    this.#stopping = true
    clearTimeout(this.#timer)
  }

  #spawn(): void {
    // The log is a file of its own, not a pipe: the program must outlive this supervisor.
    const log = openSync(this.#command.logFile, 'a', 0o600)
    const child = spawn(process.execPath, this.#command.arguments, {
      cwd: '/',
      stdio: ['ignore', log, log],
      detached: true,
    })
    closeSync(log)
    this.#startedAt = performance.now()
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
    if (this.#stopping) {
      this.#changed(`${this.name} ${how}`)
      return
    }
    this.#quickDeaths = ranMs >= STEADY_MS ? 0 : this.#quickDeaths + 1
    const delayMs = Math.min(RESTART_DELAY_MS * 2 ** Math.max(0, this.#quickDeaths - 1), RESTART_DELAY_MAX_MS)
    this.#restarts += 1
    this.#changed(`${this.name} ${how}; it is started again in ${delayMs} ms`)
    this.#timer = setTimeout(() => this.#spawn(), delayMs)
  }
}
