import { type ChildProcess, spawn } from 'node:child_process'
import { open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { type NbdAddress } from '../../../cli/lab/guest-disk.ts'
import { SeededRandom } from '../../simulator/seeded-random.ts'
import { CHUNK_BYTES, type Chunks, TOOLS, type ToolRun } from './foreign-tools.ts'
import { type Guest, type GuestWork } from './guest.ts'

/** A tool may have to wait out the longest fault, several times. */
const RUN_DEADLINE_MS = 240_000
/** The end of the volume is fio's own place. */
const FIO_BYTES = 4 * 1024 * 1024
const POLL_MS = 50
/** For the rest of a program's output after its end. */
const OUTPUT_MS = 1_000
/** nbdsh is a module of Debian's Python, which may not be the first one. */
const DEBIAN_FIRST = `/usr/bin:${process.env['PATH'] ?? ''}`
const CHUNKS_AT_ONCE = 24

/**
 * Runs tools that others wrote, one after the other, on one volume. What a run has written is known when it has ended with
 * a flush; after one that failed or was killed its chunks are unknown until they are written again.
 */
export class ForeignGuest implements Guest {
  readonly #chunks: number
  readonly #size: number
  readonly #scratch: string
  readonly #random: SeededRandom
  /** By chunk, the byte that it is full of. */
  readonly #known = new Map<number, number>()
  #faults: string[] = []
  #running: ChildProcess | null = null
  #session: { ended: boolean; readonly done: Promise<void> } | null = null
  #runs = 0
  #writes = 0
  #bytesVerified = 0

  /** @param scratch path of a file that it may write @param size of the volume in bytes */
  constructor(size: number, scratch: string, seed: number) {
    this.#size = size
    this.#chunks = Math.floor((size - FIO_BYTES) / CHUNK_BYTES)
    this.#scratch = scratch
    this.#random = new SeededRandom(seed)
  }

  get work(): GuestWork {
    return { writes: this.#writes, bytesVerified: this.#bytesVerified }
  }

  async begin(address: NbdAddress): Promise<void> {
    if (this.#session !== null) throw new Error('the foreign guest is there already')
    const session = { ended: false, done: Promise.resolve() }
    session.done = this.#work(address, session)
    this.#session = session
    return Promise.resolve()
  }

  async progress(deadlineMs: number): Promise<void> {
    const [from, end] = [this.#runs, performance.now() + deadlineMs]
    while (this.#runs === from) {
      if (this.#faults.length > 0) return
      if (performance.now() >= end) throw new Error(`no foreign tool ended within ${deadlineMs / 1000} s`)
      await delay(POLL_MS)
    }
  }

  mark(): void {
    // A tool says nothing of single requests.
  }

  async longestWaitMs(): Promise<null> {
    return Promise.resolve(null)
  }

  doomed(): void {
    if (this.#session !== null) this.#session.ended = true
  }

  async kill(): Promise<void> {
    const session = this.#session
    if (session === null) return
    session.ended = true
    this.#running?.kill('SIGKILL')
    await session.done
    this.#session = null
  }

  async stop(): Promise<void> {
    const session = this.#session
    if (session === null) return
    session.ended = true
    const kill = setTimeout(() => {
      this.#faults.push('a foreign tool did not end')
      this.#running?.kill('SIGKILL')
    }, RUN_DEADLINE_MS)
    await session.done
    clearTimeout(kill)
    this.#session = null
  }

  async checkAll(address: NbdAddress): Promise<void> {
    const session = { ended: false }
    await this.#copy(address, session)
    const all = [...this.#known]
    if (await this.#run(TOOLS.nbdsh(address, [], all), session)) this.#verified(all)
  }

  takeFaults(): string[] {
    return this.#faults.splice(0)
  }

  async #work(address: NbdAddress, session: { ended: boolean }): Promise<void> {
    while (!session.ended && this.#faults.length === 0) {
      const turn = this.#random.below(8)
      if (turn < 3) await this.#qemuIo(address, session)
      else if (turn < 6) await this.#nbdsh(address, session)
      else if (turn < 7) await this.#copy(address, session)
      else await this.#fio(address, session)
    }
  }

  async #qemuIo(address: NbdAddress, session: { ended: boolean }): Promise<void> {
    const chunks = this.#draw()
    if (!(await this.#write(chunks, TOOLS.qemuIoWrite(address, chunks), session))) return
    const some = this.#someKnown()
    if (await this.#run(TOOLS.qemuIoRead(address, some), session)) this.#verified(some)
  }

  async #nbdsh(address: NbdAddress, session: { ended: boolean }): Promise<void> {
    const chunks = this.#draw()
    const written = new Set(chunks.map(([chunk]) => chunk))
    const others = this.#someKnown().filter(([chunk]) => !written.has(chunk))
    const read = [...chunks, ...others]
    if (await this.#write(chunks, TOOLS.nbdsh(address, chunks, read), session)) this.#verified(read)
  }

  async #fio(address: NbdAddress, session: { ended: boolean }): Promise<void> {
    const seed = this.#random.below(2 ** 30)
    if (await this.#run(TOOLS.fio(address, this.#size - FIO_BYTES, FIO_BYTES, seed), session)) {
      this.#writes += 1
      this.#bytesVerified += FIO_BYTES
    }
  }

  /** Copies the whole volume into a file, and compares what is known. */
  async #copy(address: NbdAddress, session: { ended: boolean }): Promise<void> {
    if (await this.#run(TOOLS.nbdcopy(address, this.#scratch), session)) {
      const file = await open(this.#scratch)
      const found = Buffer.alloc(CHUNK_BYTES)
      for (const [chunk, byte] of this.#known) {
        await file.read(found, 0, CHUNK_BYTES, chunk * CHUNK_BYTES)
        const wrong = found.findIndex(other => other !== byte)
        if (wrong >= 0) {
          this.#faults.push(`nbdcopy: byte ${chunk * CHUNK_BYTES + wrong} is ${found[wrong]}, not ${byte}`)
          break
        }
      }
      await file.close()
      this.#verified([...this.#known])
    }
    await rm(this.#scratch, { force: true })
  }

  async #write(chunks: Chunks, run: ToolRun, session: { ended: boolean }): Promise<boolean> {
    for (const [chunk] of chunks) this.#known.delete(chunk)
    if (!(await this.#run(run, session))) return false
    for (const [chunk, byte] of chunks) this.#known.set(chunk, byte)
    this.#writes += chunks.length
    return true
  }

  /** @returns whether it ended well; a fault is noted unless the guest was told to die */
  async #run(
    { program, words, environment = {}, isWrong }: ToolRun,
    session: { ended: boolean }
  ): Promise<boolean> {
    const child = spawn(program, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: tmpdir(),
      env: { ...process.env, ...environment, PATH: DEBIAN_FIRST, LC_ALL: 'C' },
    })
    this.#running = child
    let output = ''
    const take = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-4_000)
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    const late = setTimeout(() => {
      output += `\nit did not end within ${RUN_DEADLINE_MS / 1000} s`
      child.kill('SIGKILL')
    }, RUN_DEADLINE_MS)
    const code = await new Promise<number | null>(resolve => {
      child.once('error', error => {
        output += error.message
        resolve(null)
      })
      child.once('close', resolve)
      // What it may have started holds its output open, and must not hold us.
      child.once('exit', code => setTimeout(() => resolve(code), OUTPUT_MS).unref())
    })
    clearTimeout(late)
    this.#running = null
    this.#runs += 1
    if (isWrong(output)) this.#faults.push(`${program} read something wrong: ${output.trim()}`)
    else if (code !== 0 && !session.ended) {
      this.#faults.push(`${program} ended with ${code ?? 'a signal'}: ${output.trim()}`)
    }
    return code === 0 && !isWrong(output)
  }

  #draw(): Chunks {
    const first = this.#random.below(this.#chunks)
    const count = 1 + this.#random.below(Math.min(CHUNKS_AT_ONCE, this.#chunks - first))
    return Array.from({ length: count }, (_, index) => [first + index, 1 + this.#random.below(255)] as const)
  }

  #someKnown(): Chunks {
    const all = [...this.#known]
    const from = this.#random.below(Math.max(1, all.length - CHUNKS_AT_ONCE))
    return all.slice(from, from + CHUNKS_AT_ONCE)
  }

  #verified(chunks: Chunks): void {
    this.#bytesVerified += chunks.length * CHUNK_BYTES
  }
}
