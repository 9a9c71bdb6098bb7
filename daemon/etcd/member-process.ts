/**
 * The two processes of this host's member of etcd: etcd itself, which listens on unix sockets only, and the gate before it,
 * which has the member's ports (`gate.ts`). Both belong to the host, not to xosand: an upgrade or a crash of xosand must not
 * cost the cluster a member.
 */
import { strict as assert } from 'node:assert'
import { rmSync } from 'node:fs'
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { etcdPath } from '../cluster/cluster-file.ts'
import { LastingProcess } from '../supervision/lasting-process.ts'
import { hasArguments } from '../supervision/process-handle.ts'
import { GATE_PROGRAM, buildOf, gateArguments, gateMark } from './gate-arguments.ts'
import {
  type Bootstrap,
  type MemberPlace,
  memberArguments,
  memberMark,
  SOCKETS,
  socketsPath,
} from './member-arguments.ts'

/** A member that keeps dying costs a start each time, which reads its whole log; longer, and a repair would wait for it. */
const RESTART_PAUSES = { firstMs: 200, longestMs: 15_000 }
/** etcd hands leadership over and closes its files; it gives its own clients five seconds. */
const STOP_MS = 20_000
/** It holds nothing, and starts in half a second. */
const GATE_RESTART_PAUSES = { firstMs: 100, longestMs: 5_000 }
const GATE_STOP_MS = 2_000

export interface MemberProcessOptions extends MemberPlace {
  /** etcd, as a path or a name to be found in PATH. */
  readonly program: string
  /** Directory of XOSAN's own programs. */
  readonly programs: string
  /** A sentence about a process: started, ended, started again. */
  readonly log: (text: string) => void
}

export class MemberProcess {
  readonly #options: MemberProcessOptions
  readonly #data: string
  readonly #etcd: LastingProcess
  readonly #gate: LastingProcess
  readonly #gateWords: readonly string[]

  constructor(options: MemberProcessOptions) {
    const { stateDirectory, program, programs, log } = options
    this.#options = options
    this.#data = etcdPath(stateDirectory)
    this.#etcd = new LastingProcess({
      command: {
        name: 'etcd',
        program,
        logFile: join(stateDirectory, 'etcd.log'),
        // It takes the names of its sockets for relative ones, whatever they are.
        directory: socketsPath(stateDirectory),
        // Nothing else: etcd takes flags from ETCD_ variables, and a proxy for its peers from others. Go 1.12, with which
        // etcd 3.4 was released, knows TLS 1.3 and speaks it only when told to.
        environment: { PATH: process.env['PATH'], GODEBUG: 'tls13=1' },
        // One that was killed leaves the socket for clients behind, and then nobody can listen there. One that lives must
        // keep its own: nobody could reach it any more, and no xosand would see why.
        prepare: async () => {
          const [living] = await this.#etcd.leftRunning()
          if (living !== undefined) throw new Error(`it runs as ${living.pid}`)
          for (const name of Object.values(SOCKETS))
            rmSync(join(socketsPath(stateDirectory), name), { force: true })
        },
      },
      mark: memberMark(options),
      noteFile: join(stateDirectory, 'etcd-process.json'),
      pauses: RESTART_PAUSES,
      stopMs: STOP_MS,
      log,
    })
    this.#gate = new LastingProcess({
      command: {
        name: "etcd's gate",
        program: process.execPath,
        logFile: join(stateDirectory, 'etcd-gate.log'),
        environment: { PATH: process.env['PATH'] },
      },
      mark: gateMark(options),
      noteFile: join(stateDirectory, 'etcd-gate-process.json'),
      pauses: GATE_RESTART_PAUSES,
      stopMs: GATE_STOP_MS,
      log,
    })
    const gate = join(programs, GATE_PROGRAM)
    this.#gateWords = [gate, ...gateArguments(options, buildOf(gate))]
  }

  /** Whether this looks after a process of etcd: it runs, or will be started again. */
  get started(): boolean {
    return this.#etcd.started
  }

  /** Of etcd, or null while it is down. */
  get pid(): number | null {
    return this.#etcd.pid
  }

  /** Of the gate, or null while it is down. */
  get gatePid(): number | null {
    return this.#gate.pid
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
   * Looks after the processes that an earlier xosand has left, if there are any. To be called first.
   * @returns whether there is one of etcd
   */
  async adopt(): Promise<boolean> {
    if (await this.#etcd.adopt(memberArguments(this.#options, { state: 'new' }))) {
      await this.#openGate()
      return true
    }
    // One that stands before nothing has the ports all the same.
    if (!(await this.hasData())) await this.#gate.stop()
    return false
  }

  /**
   * Starts the member; it is started again whenever it ends. Without data it becomes what `bootstrap` says; with data it
   * goes on as what it was. Does nothing when it runs already, except that one without data starts anew when the
   * members have changed: it would refuse to join.
   */
  async start(bootstrap: Bootstrap): Promise<void> {
    const words = memberArguments(this.#options, bootstrap)
    if (await this.adopt()) {
      const same = words.join(' ') === this.#etcd.arguments.join(' ')
      if (same || (await this.hasData())) return
      await this.stop()
    }
    // What etcd has left of an attempt to begin, or of a database whose log is lost, is not to be built upon.
    if (!(await this.hasData())) await this.destroy()
    await mkdir(this.#data, { recursive: true, mode: 0o700 })
    await mkdir(socketsPath(this.#options.stateDirectory), { recursive: true, mode: 0o700 })
    this.#etcd.start(words)
    await this.#openGate()
  }

  /** Ends the processes in order, or by force when that takes too long; they are not started again. */
  async stop(): Promise<void> {
    // The gate last: a leader still hands its office over.
    await this.#etcd.stop()
    await this.#gate.stop()
  }

  /** Ends etcd and starts it as it was: it reads the authorities by which it knows its peers only once. */
  async restart(): Promise<void> {
    if (!this.#etcd.started) return
    const words = this.#etcd.arguments
    await this.#etcd.stop()
    this.#etcd.start(words)
  }

  /** Looks after the processes no longer; they go on. For the end of xosand. */
  release(): void {
    this.#etcd.release()
    this.#gate.release()
  }

  /** Removes the member's data, at once as far as any reader can see. Only to be called when etcd is stopped. */
  async destroy(): Promise<void> {
    assert.deepEqual(await this.#etcd.leftRunning(), [], 'data of a running member')
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

  /** One of another build, or of another Node, or on another address, makes room for one that is as it should be. */
  async #openGate(): Promise<void> {
    const [left] = this.#gate.started ? [] : await this.#gate.leftRunning()
    if (left !== undefined && !(await hasArguments(left, this.#gateWords))) await this.#gate.stop()
    if (!(await this.#gate.adopt(this.#gateWords))) this.#gate.start(this.#gateWords)
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
