import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, statfsSync } from 'node:fs'
import { createServer } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Client, credentials } from '@grpc/grpc-js'
import { COMPACT, type Method, STATUS } from '../../cluster/etcd/protocol.ts'
import { type StatusReply, statusReply } from '../../cluster/etcd/replies.ts'
import { type EtcdMember } from '../../cluster/etcd/member-link.ts'
import { hasProgram } from './run-program.ts'

const ETCD = 'etcd'

/** Whether tests with real members can run here. */
export const hasEtcd = (): boolean => hasProgram(ETCD)

export interface EtcdClusterOptions {
  readonly members: 1 | 3
  /** Flags of etcd beside those that every test needs. */
  readonly flags?: readonly string[]
  /** Paths of PEM files, for members that ask their clients for certificates. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  /**
   * In place of `tls`: members at addresses of their own, with mutual TLS also among themselves. One for each member.
   */
  readonly hosts?: readonly EtcdHost[]
}

interface EtcdHost {
  readonly address: string
  /** Path of the certificates that are trusted. */
  readonly authorities: string
  /** Path of a file with the host's key and certificate. */
  readonly pem: string
}

/** Short, so that an election takes half a second; not so short that two loaded cores elect for ever. */
const HEARTBEAT_MS = 50
const ELECTION_MS = 500
const START_MS = 20_000
const SHARED_MEMORY = '/dev/shm'
const MEMORY_BYTES_MIN = 2 * 1024 ** 3

/** A member, running or not. */
export interface TestMember {
  readonly name: string
  readonly client: EtcdMember
  readonly peerUrl: string
  readonly flags: readonly string[]
  child: ChildProcess | null
  output: string
}

/** Real etcd members on the loopback, with their data in a temporary directory. */
export class EtcdCluster {
  readonly #directory: string
  readonly #members: TestMember[]

  private constructor(directory: string, members: TestMember[]) {
    this.#directory = directory
    this.#members = members
  }

  /** Starts the members and waits until all know a leader. */
  static async start(options: EtcdClusterOptions): Promise<EtcdCluster> {
    const directory = await mkdtemp(join(fastDirectory(), 'xosan-etcd-'))
    const ports = await freePorts(2 * options.members)
    const names = Array.from({ length: options.members }, (_, i) => `m${i}`)
    const addressOf = (i: number): string => options.hosts?.[i]?.address ?? '127.0.0.1'
    const scheme = options.hosts === undefined ? 'http' : 'https'
    const peerUrl = (i: number): string => `${scheme}://${addressOf(i)}:${ports[2 * i + 1]!}`
    const initial = names.map((one, i) => `${one}=${peerUrl(i)}`)
    const members = names.map((name, i) => {
      const client = { address: addressOf(i), port: ports[2 * i]! }
      const flags = [
        ...flagsOf(directory, name, client, peerUrl(i), options),
        ...hostFlags(options.hosts?.[i]),
        ...clusterFlags('new', initial),
      ]
      return { name, client, peerUrl: peerUrl(i), flags, child: null, output: '' }
    })
    const cluster = new EtcdCluster(directory, members)
    try {
      for (const i of names.keys()) cluster.#spawn(i)
      if (options.tls === undefined && options.hosts === undefined) await cluster.untilLed()
    } catch (error) {
      await cluster.end()
      throw error
    }
    return cluster
  }

  /** Where clients find the members. */
  get members(): readonly EtcdMember[] {
    return this.#members.map(({ client }) => client)
  }

  /** Chooses where one more member will listen; it has to be added to the cluster before it can `join`. */
  async prepareJoin(): Promise<TestMember> {
    const [clientPort, peerPort] = await freePorts(2)
    const name = `m${this.#members.length}`
    const client = { address: '127.0.0.1', port: clientPort! }
    const peerUrl = `http://127.0.0.1:${peerPort!}`
    const initial = [...this.#members, { name, peerUrl }].map(one => `${one.name}=${one.peerUrl}`)
    const flags = [
      ...flagsOf(this.#directory, name, client, peerUrl, { members: 1 }),
      ...clusterFlags('existing', initial),
    ]
    return { name, client, peerUrl, flags, child: null, output: '' }
  }

  /** Starts a member that was added. */
  join(member: TestMember): void {
    this.#spawn(this.#members.push(member) - 1)
  }

  /** Waits until every running member knows the same leader. @returns its index */
  async untilLed(): Promise<number> {
    const startedAt = performance.now()
    for (;;) {
      const statuses = await Promise.all(this.#members.map(async (_, i) => this.#statusIfRunning(i)))
      const running = statuses.filter(status => status !== 'stopped')
      const leaders = new Set(running.map(status => status?.leader ?? '0'))
      const [leader] = leaders
      if (leaders.size === 1 && leader !== undefined && leader !== '0') {
        const index = statuses.findIndex(
          status => status !== null && status !== 'stopped' && status.header.member_id === leader
        )
        if (index >= 0) return index
      }
      if (performance.now() - startedAt > START_MS) {
        throw new Error(`no leader:\n${this.#members.map(({ output }) => output).join('\n')}`)
      }
      await delay(20)
    }
  }

  /** Where a member listens for the others. */
  peerPort(index: number): number {
    return Number(new URL(this.#members[index]!.peerUrl).port)
  }

  /** What a member has written to its log last. */
  output(index: number): string {
    return this.#members[index]!.output
  }

  /** What a member says of itself. */
  async status(index: number): Promise<StatusReply> {
    return statusReply.parse(await this.#call(index, STATUS, {}))
  }

  /** Makes all members forget their history before a revision. */
  async compact(revision: number): Promise<void> {
    await this.#call(0, COMPACT, { revision, physical: true })
  }

  /** Lets a member stand still, and waits until it does. */
  async pause(index: number): Promise<void> {
    this.#members[index]!.child!.kill('SIGSTOP')
    // The kernel stops one thread after the other; a stopped process shows the state T (proc_pid_stat(5)).
    for (const task of readdirSync(`/proc/${this.pid(index)}/task`)) {
      const file = `/proc/${this.pid(index)}/task/${task}/stat`
      while (existsSync(file) && !/\) T /.test(readFileSync(file, 'latin1'))) await delay(1)
    }
  }

  /** Lets a member that stands still go on. */
  resume(index: number): void {
    this.#members[index]!.child?.kill('SIGCONT')
  }

  /** Ends a member as a power cut would, and waits until it is gone. */
  async kill(index: number): Promise<void> {
    const member = this.#members[index]!
    const { child } = member
    if (child === null) return
    member.child = null
    const gone = new Promise(resolve => child.once('close', resolve))
    child.kill('SIGKILL')
    await gone
  }

  /** Starts a member that was killed, with its data. */
  restart(index: number): void {
    if (this.#members[index]!.child === null) this.#spawn(index)
  }

  /** Brings back whatever a test has stopped. */
  async heal(): Promise<void> {
    for (const i of this.#members.keys()) {
      this.resume(i)
      this.restart(i)
    }
    await this.untilLed()
  }

  /** Process id of a member, for measurements. */
  pid(index: number): number {
    return this.#members[index]!.child!.pid!
  }

  /** Directory of a member's data. */
  dataOf(index: number): string {
    return join(this.#directory, this.#members[index]!.name)
  }

  /** Ends all members and removes their data. */
  async end(): Promise<void> {
    await Promise.all(this.#members.map(async (_, i) => this.kill(i)))
    await rm(this.#directory, { recursive: true, force: true })
  }

  #spawn(index: number): void {
    const member = this.#members[index]!
    const child = spawn(ETCD, member.flags, { stdio: ['ignore', 'pipe', 'pipe'] })
    const collect = (chunk: Buffer): void => {
      member.output = (member.output + chunk.toString()).slice(-4_000)
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    member.child = child
  }

  async #statusIfRunning(index: number): Promise<StatusReply | null | 'stopped'> {
    if (this.#members[index]!.child === null) return 'stopped'
    try {
      return await this.status(index)
    } catch {
      return null
    }
  }

  /** Without any of the client's own care, so that tests do not trust what they test. */
  async #call(index: number, method: Method, request: object): Promise<unknown> {
    const { address, port } = this.#members[index]!.client
    const client = new Client(`${address}:${port}`, credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
    })
    try {
      return await new Promise((resolve, reject) => {
        client.makeUnaryRequest<object, unknown>(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          request,
          (error, answer) => (error === null ? resolve(answer) : reject(error))
        )
      })
    } finally {
      client.close()
    }
  }
}

/**
 * Memory, where there is enough of it: a member syncs every change, and a disk that others keep busy would make every
 * test one of slow disks. Members allocate 128 MiB each in advance.
 */
export function fastDirectory(): string {
  try {
    const { bavail, bsize } = statfsSync(SHARED_MEMORY)
    return bavail * bsize >= MEMORY_BYTES_MIN ? SHARED_MEMORY : tmpdir()
  } catch {
    return tmpdir()
  }
}

function flagsOf(
  directory: string,
  name: string,
  client: EtcdMember,
  peerUrl: string,
  { tls, hosts, flags = [] }: EtcdClusterOptions
): string[] {
  const clear = tls === undefined && hosts === undefined
  const clientUrl = `${clear ? 'http' : 'https'}://${client.address}:${client.port}`
  return [
    ...['--name', name, '--data-dir', join(directory, name), '--logger', 'zap', '--log-level', 'warn'],
    ...['--listen-client-urls', clientUrl, '--advertise-client-urls', clientUrl],
    ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
    ...['--initial-cluster-token', directory],
    ...['--heartbeat-interval', String(HEARTBEAT_MS), '--election-timeout', String(ELECTION_MS)],
    // A member that comes back does not unseat a leader.
    '--pre-vote',
    ...(tls === undefined ? [] : ['--client-cert-auth', '--trusted-ca-file', tls.ca]),
    ...(tls === undefined ? [] : ['--cert-file', tls.cert, '--key-file', tls.key]),
    ...flags,
  ]
}

function hostFlags(host: EtcdHost | undefined): string[] {
  if (host === undefined) return []
  const { authorities, pem } = host
  return ['', 'peer-'].flatMap(end => [
    ...[`--${end}client-cert-auth`, `--${end}trusted-ca-file`, authorities],
    ...[`--${end}cert-file`, pem, `--${end}key-file`, pem],
  ])
}

const clusterFlags = (state: 'new' | 'existing', initial: readonly string[]): string[] => [
  ...['--initial-cluster-state', state, '--initial-cluster', initial.join(',')],
]

/** Below the range that the kernel gives to outgoing connections, which come and go all the time. */
const PORT_MIN = 12_000
const PORT_MAX = 32_000

/** Different ports that nobody listens on now. */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) {
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN))
    if (await isFree(port)) ports.add(port)
  }
  return [...ports]
}

async function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
