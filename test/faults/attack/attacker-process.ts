import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { labCommand } from '../../../cli/lab/lab-links.ts'
import {
  type Attempt,
  type AttemptOutcome,
  type Flood,
  type FloodOutcome,
  type Linger,
  type LingerOutcome,
  type Order,
  type Report,
} from './attack-wire.ts'

const PROGRAM = fileURLToPath(new URL('./attacker.ts', import.meta.url))

/** A process in the network of a lab host that tries to get in where it is told. */
export class Attacker {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (report: Report) => void>()
  readonly #ended: Promise<never>
  #orders = 0

  private constructor(child: ChildProcess) {
    this.#child = child
    this.#ended = new Promise((_, reject) => {
      child.once('error', reject)
      child.once('exit', code => reject(new Error(`the attacker has ended with ${code ?? 'a signal'}`)))
    })
    this.#ended.catch(() => undefined)
    createInterface({ input: child.stdout! }).on('line', line => {
      const report = JSON.parse(line) as Report
      this.#waiting.get(report.id)?.(report)
      this.#waiting.delete(report.id)
    })
  }

  /** @param labDirectory of a lab with namespaces; @param host name of the one in whose network it runs */
  static async start(labDirectory: string, host: string): Promise<Attacker> {
    const command = [process.execPath, '--import', 'tsx', PROGRAM]
    const [program, ...words] = await labCommand(labDirectory, host, command)
    return new Attacker(spawn(program!, words, { stdio: ['pipe', 'pipe', 'inherit'] }))
  }

  async attempt(attempt: Omit<Attempt, 'kind'>): Promise<AttemptOutcome> {
    const report = await this.#order({ kind: 'attempt', ...attempt })
    return (report as Extract<Report, { attempt: unknown }>).attempt
  }

  /** Opens connections and leaves those open that nobody closes. */
  async flood(flood: Omit<Flood, 'kind'>): Promise<FloodOutcome> {
    const report = await this.#order({ kind: 'flood', ...flood })
    return (report as Extract<Report, { flood: unknown }>).flood
  }

  /** Connects as who may, and goes on until the other end has had enough. */
  async linger(linger: Omit<Linger, 'kind'>): Promise<LingerOutcome> {
    const report = await this.#order({ kind: 'linger', ...linger })
    return (report as Extract<Report, { linger: unknown }>).linger
  }

  /** Closes what floods have left open. */
  release(): void {
    this.#send({ kind: 'release', id: 0 })
  }

  /** Ends the process, whatever it does. */
  async dispose(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended.catch(() => undefined)
  }

  async #order(order: Attempt | Flood | Linger): Promise<Report> {
    const id = ++this.#orders
    const reported = new Promise<Report>(resolve => this.#waiting.set(id, resolve))
    this.#send({ ...order, id })
    return Promise.race([reported, this.#ended])
  }

  #send(order: Order): void {
    this.#child.stdin!.write(`${JSON.stringify(order)}\n`)
  }
}
