import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type ProcessHandle } from '../../../daemon/supervision/process-handle.ts'
import { type LoadCommand, type LoadMessage, type LoadOptions, type LoadReport } from './load-protocol.ts'

const POLL_MS = 50

const PROGRAM = fileURLToPath(new URL('./load-generator.ts', import.meta.url))

/** A load generator in a process of its own. */
export class Load {
  readonly #child: ChildProcess
  readonly #waiting: { readonly kind: LoadMessage['kind']; readonly take: (message: LoadMessage) => void }[] =
    []
  readonly #arrived: LoadMessage[] = []
  readonly #exited: Promise<string>
  #failure: string | null = null

  constructor(options: LoadOptions) {
    this.#child = spawn(process.execPath, ['--import', 'tsx', PROGRAM, JSON.stringify(options)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    this.#child.on('message', message => this.#take(message as LoadMessage))
    this.#exited = new Promise(resolve => {
      this.#child.once('error', error => resolve(error.message))
      this.#child.once('exit', (code, name) =>
        resolve(`the load generator ended with ${name ?? code ?? '?'}`)
      )
    })
    void this.#exited.then(how => {
      this.#failure = how
    })
  }

  /** The volume was checked against the journal and the load has begun. */
  async started(): Promise<LoadReport> {
    return (await this.#next('started')).report
  }

  /**
   * Ends or stops processes at a moment when enough writes are in flight.
   *
   * @returns how many were
   */
  async signal(
    name: 'SIGKILL' | 'SIGSTOP',
    processes: readonly ProcessHandle[],
    writesInFlightMin: number
  ): Promise<number> {
    this.#send({ kind: 'signal', name, processes, writesInFlightMin })
    return (await this.#next('signalled')).writesInFlight
  }

  /**
   * Waits until so many more writes have been acknowledged.
   *
   * @returns how the load was then
   * @throws Error when the load has ended, or it takes longer than a time in milliseconds
   */
  async progress(writes: number, deadlineMs: number): Promise<LoadReport> {
    const end = performance.now() + deadlineMs
    const from = (await this.report()).writesAcknowledged
    for (;;) {
      const report = await this.report()
      if (report.writesAcknowledged >= from + writes) return report
      if (report.connectionLost || report.errors.length > 0) {
        throw new Error(`the load ended: ${report.errors[0] ?? 'connection lost'}`)
      }
      if (performance.now() >= end) {
        const done = report.writesAcknowledged - from
        throw new Error(`only ${done} writes were acknowledged within ${deadlineMs / 1000} s`)
      }
      await delay(POLL_MS)
    }
  }

  /** Measures the longest waits anew from here. */
  mark(): void {
    this.#send({ kind: 'mark' })
  }

  async report(): Promise<LoadReport> {
    this.#send({ kind: 'report' })
    return (await this.#next('report')).report
  }

  /** Waits until the load has ended by itself: by `checkOnly`, a lost connection or an error. */
  async ended(): Promise<LoadReport> {
    const { report } = await this.#next('ended')
    await this.#exited
    return report
  }

  async stop(): Promise<LoadReport> {
    this.#send({ kind: 'stop' })
    return await this.ended()
  }

  /** Ends the process whatever it does; for clean-up. */
  async dispose(): Promise<void> {
    if (this.#failure === null) {
      this.#child.kill('SIGKILL')
      await this.#exited
    }
  }

  #send(command: LoadCommand): void {
    if (this.#child.connected) this.#child.send(command)
  }

  async #next<K extends LoadMessage['kind']>(kind: K): Promise<Extract<LoadMessage, { kind: K }>> {
    const index = this.#arrived.findIndex(message => message.kind === kind)
    const message =
      index >= 0
        ? this.#arrived.splice(index, 1)[0]!
        : await Promise.race([
            new Promise<LoadMessage>(take => this.#waiting.push({ kind, take })),
            this.#exited.then(how => {
              throw new Error(`${how} before it said '${kind}'`)
            }),
          ])
    return message as Extract<LoadMessage, { kind: K }>
  }

  #take(message: LoadMessage): void {
    const index = this.#waiting.findIndex(({ kind }) => kind === message.kind)
    if (index >= 0) this.#waiting.splice(index, 1)[0]!.take(message)
    else this.#arrived.push(message)
  }
}
