import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A child process that prints one line for each step it has made. */
export class Child {
  readonly process: ChildProcess
  /** Lines printed so far. */
  lines = 0
  #exited: Promise<unknown>
  #listeners = new Set<() => void>()

  /** @param script URL of its file */
  constructor(script: string, ...argv: string[]) {
    const path = fileURLToPath(script)
    this.process = spawn(process.execPath, ['--import', 'tsx', path, ...argv], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#exited = once(this.process, 'exit')
    createInterface({ input: this.process.stdout! }).on('line', () => {
      this.lines++
      this.#listeners.forEach(listener => listener())
    })
  }

  /** Waits until it has printed so many lines, or has ended. */
  async reached(lines: number): Promise<void> {
    const printed = new Promise<void>(resolve => {
      const check = (): void => {
        if (this.lines >= lines) {
          this.#listeners.delete(check)
          resolve()
        }
      }
      this.#listeners.add(check)
      check()
    })
    await Promise.race([printed, this.#exited])
  }

  /** Waits for its end. @returns its exit code */
  async exit(): Promise<number | null> {
    await this.#exited
    return this.process.exitCode
  }

  /** Ends it, whatever state it is in. */
  async kill(): Promise<void> {
    this.process.kill('SIGKILL')
    await this.#exited
  }
}
