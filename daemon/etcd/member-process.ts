/**
 * The process of this host's member of etcd. It belongs to the host, not to xosand: an upgrade or a crash of xosand must
 * not cost the cluster a member. So it runs on when xosand ends, and the next xosand finds it by a note of its pid and
 * start time, or, when xosand was killed between start and note, by its arguments.
 */
import { strict as assert } from 'node:assert'
import { renameSync, writeFileSync } from 'node:fs'
import { copyFile, mkdir, open, readFile, readdir, rename, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { reasonOf } from '../../core/errors.ts'
import { etcdPath } from '../cluster/cluster-file.ts'
import {
  type ProcessHandle,
  conditionOf,
  processesWithArguments,
  signal,
  waitForCondition,
} from '../supervision/process-handle.ts'
import { type Run, bootId, runSchema } from '../supervision/run.ts'
import { Supervised } from '../supervision/supervised.ts'
import { type Bootstrap, type MemberPlace, memberArguments } from './member-arguments.ts'

/** A member that keeps dying costs a start each time, which reads its whole log; longer, and a repair would wait for it. */
const RESTART_PAUSES = { firstMs: 200, longestMs: 15_000 }
/** etcd hands leadership over and closes its files; it gives its own clients five seconds. */
const STOP_MS = 20_000
/** A killed process is gone at once, but for a stuck disk. */
const KILL_MS = 10_000
/** Warnings of some days in bad times; there are two files. */
const LOG_BYTES_MAX = 4 * 1024 * 1024
const LOG_LOOK_MS = 60_000

const noteSchema = z.strictObject({ version: z.literal(1), boot: z.string(), run: runSchema.nullable() })

export interface MemberProcessOptions extends MemberPlace {
  /** etcd, as a path or a name to be found in PATH. */
  readonly program: string
  /** A sentence about the process: started, ended, started again. */
  readonly log: (text: string) => void
}

export class MemberProcess {
  readonly #options: MemberProcessOptions
  readonly #data: string
  readonly #note: string
  readonly #logFile: string
  #supervised: Supervised | null = null
  #arguments: readonly string[] = []
  #logTimer: NodeJS.Timeout | undefined

  constructor(options: MemberProcessOptions) {
    this.#options = options
    this.#data = etcdPath(options.stateDirectory)
    this.#note = join(options.stateDirectory, 'etcd-process.json')
    this.#logFile = join(options.stateDirectory, 'etcd.log')
  }

  /** Whether this looks after a process: it runs, or will be started again. */
  get started(): boolean {
    return this.#supervised !== null
  }

  /** Of the process, or null while it is down. */
  get pid(): number | null {
    return this.#supervised?.run?.pid ?? null
  }

  /** Whether there is what a member has voted for and promised: its write-ahead log, by which etcd, too, decides. */
  async hasData(): Promise<boolean> {
    const names = await readdir(join(this.#data, 'member', 'wal')).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw error
    })
    return names.some(name => name.endsWith('.wal'))
  }

  /**
   * Looks after the process that an earlier xosand has left, if there is one. To be called first.
   * @returns whether there is
   */
  async adopt(): Promise<boolean> {
    if (this.#supervised !== null) return true
    const [first, ...others] = await this.#leftRunning()
    for (const other of others) signal(other, 'SIGKILL')
    if (first === undefined) return false
    this.#supervise(memberArguments(this.#options, { state: 'new' }), { restarts: 0, ...first })
    return true
  }

  /**
   * Starts the member; it is started again whenever it ends. Without data it becomes what `bootstrap` says; with data it
   * goes on as what it was. Does nothing when it runs already, except that one without data starts anew when the
   * members have changed: it would refuse to join.
   */
  async start(bootstrap: Bootstrap): Promise<void> {
    if (await this.adopt()) {
      const same = memberArguments(this.#options, bootstrap).join(' ') === this.#arguments.join(' ')
      if (same || (await this.hasData())) return
      await this.stop()
    }
    // What etcd has left of an attempt to begin, or of a database whose log is lost, is not to be built upon.
    if (!(await this.hasData())) await this.destroy()
    await mkdir(this.#data, { recursive: true, mode: 0o700 })
    this.#supervise(memberArguments(this.#options, bootstrap), null)
  }

  /** Ends the process in order, or by force when that takes too long; it is not started again. */
  async stop(): Promise<void> {
    // First, so that it is not started again while this looks; the note still tells which process it is.
    this.#forget()
    const left = await this.#leftRunning()
    for (const handle of left) {
      signal(handle, 'SIGCONT')
      signal(handle, 'SIGTERM')
    }
    for (const stuck of await waitForCondition(left, 'down', STOP_MS)) signal(stuck, 'SIGKILL')
    const [immortal] = await waitForCondition(left, 'down', KILL_MS)
    if (immortal !== undefined) throw new Error(`etcd (pid ${immortal.pid}) does not end`)
    this.#writeNote(null)
  }

  /** Ends the process and starts it as it was: it reads the authorities, which it does only once. */
  async restart(): Promise<void> {
    if (this.#supervised === null) return
    const words = this.#arguments
    await this.stop()
    this.#supervise(words, null)
  }

  /** Looks after the process no longer; it goes on. For the end of xosand. */
  release(): void {
    this.#forget()
  }

  /** Removes the member's data, at once as far as any reader can see. Only to be called when the process is stopped. */
  async destroy(): Promise<void> {
    assert.deepEqual(await this.#leftRunning(), [], 'data of a running member')
    const removed = `${this.#data}.removed`
    await rm(removed, { recursive: true, force: true })
    try {
      await rename(this.#data, removed)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
      throw error
    }
    await syncDirectory(this.#options.stateDirectory)
    await rm(removed, { recursive: true, force: true })
  }

  #supervise(words: readonly string[], earlier: Run | null): void {
    const { program, log } = this.#options
    this.#arguments = words
    const command = {
      name: 'etcd',
      program,
      arguments: words,
      logFile: this.#logFile,
      // Nothing else: etcd takes flags from ETCD_ variables, and a proxy for its peers from others.
      environment: { PATH: process.env['PATH'] },
    }
    const supervised: Supervised = new Supervised(command, RESTART_PAUSES, what => {
      log(what)
      if (this.#supervised === supervised) this.#writeNote(supervised.run)
    })
    this.#supervised = supervised
    supervised.start(earlier)
    this.#watchLog()
  }

  #forget(): void {
    this.#supervised?.release()
    this.#supervised = null
    clearTimeout(this.#logTimer)
  }

  /** Living processes of this member; more than one only after xosand was killed in a bad moment. The oldest first. */
  async #leftRunning(): Promise<ProcessHandle[]> {
    const own = this.#supervised?.run ?? null
    const noted = own ?? (await this.#noted())
    const found = await processesWithArguments('--name', this.#options.host, '--data-dir', this.#data)
    const all = found.map(({ pid, startTicks }) => ({ pid, startTicks }))
    if (noted !== null && conditionOf(noted) !== 'down' && !all.some(({ pid }) => pid === noted.pid)) {
      all.push({ pid: noted.pid, startTicks: noted.startTicks })
    }
    return all.sort((a, b) => a.startTicks - b.startTicks)
  }

  async #noted(): Promise<Run | null> {
    try {
      const note = noteSchema.parse(JSON.parse(await readFile(this.#note, 'utf8')))
      return note.boot === bootId() ? note.run : null
    } catch {
      // Missing or damaged: then the process is found by its arguments.
      return null
    }
  }

  /** At once, not later: the shorter the time without a note, the better. A power cut makes it void anyway. */
  #writeNote(run: Run | null): void {
    try {
      writeFileSync(`${this.#note}.new`, `${JSON.stringify({ version: 1, boot: bootId(), run })}\n`, {
        mode: 0o600,
      })
      renameSync(`${this.#note}.new`, this.#note)
    } catch (error) {
      this.#options.log(`the note of etcd's process could not be written: ${reasonOf(error)}`)
    }
  }

  #watchLog(): void {
    clearTimeout(this.#logTimer)
    this.#logTimer = setTimeout(() => {
      void shortenLog(this.#logFile)
        .catch((error: unknown) => this.#options.log(`etcd's log is not shortened: ${reasonOf(error)}`))
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

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
