/** Hosts that each look after their member of etcd, as their xosands would, in one process. */
import { setTimeout as delay } from 'node:timers/promises'
import { type EtcdCoordinator, openEtcdCoordinator } from '../../cluster/etcd/etcd-coordinator.ts'
import { type HostId } from '../../core/units.ts'
import { type ClusterEtcdMember } from '../../daemon/cluster/cluster-file.ts'
import { type KeeperTiming, MemberKeeper } from '../../daemon/etcd/member-keeper.ts'
import { createNodeClock } from '../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../daemon/ports/node-random.ts'
import { programsDirectory } from '../../daemon/supervision/programs.ts'
import { type EtcdHost, EtcdHosts, soon } from './etcd-hosts.ts'

const TIMING: KeeperTiming = { replaceAfterMs: 600_000, patienceMs: 5_000, lookMs: 1_000, busyLookMs: 400 }

interface Node {
  readonly host: EtcdHost
  readonly witness: boolean
  /** It has a record, and so belongs to the cluster. */
  recorded: boolean
  leaving: boolean
  known: readonly ClusterEtcdMember[]
  keeper: MemberKeeper | null
}

export class EtcdKeepers {
  readonly rig: EtcdHosts
  readonly nodes: readonly Node[]
  readonly warnings: string[] = []
  /** Called before each step that a host takes, with its number and what it says. */
  stepping: (n: number, text: string) => void = () => undefined
  readonly #timing: KeeperTiming
  readonly #opened: MemberKeeper[] = []

  private constructor(rig: EtcdHosts, witnesses: number, timing: Partial<KeeperTiming>) {
    this.rig = rig
    this.#timing = { ...TIMING, ...timing }
    this.nodes = rig.hosts.map((host, index) => ({
      host,
      witness: index >= rig.hosts.length - witnesses,
      recorded: false,
      leaving: false,
      known: [],
      keeper: null,
    }))
  }

  /** Hosts of which the first has formed a cluster alone; nobody looks after anything yet. */
  static async form(
    count: number,
    { witnesses = 0, ...timing }: Partial<KeeperTiming> & { readonly witnesses?: number } = {}
  ): Promise<EtcdKeepers> {
    const keepers = new EtcdKeepers(await EtcdHosts.create(count), witnesses, timing)
    const [first] = keepers.nodes
    first!.keeper = keepers.#keeper(first!)
    await first!.keeper.startAlone(40_000)
    keepers.join(0)
    return keepers
  }

  /** Lets hosts of these numbers into the cluster. */
  join(...numbers: readonly number[]): void {
    for (const n of numbers) {
      const node = this.nodes[n]!
      node.recorded = true
      node.known = node.known.length === 0 ? this.nodes[0]!.known : node.known
      node.keeper ??= this.#keeper(node)
      node.keeper.start()
    }
  }

  /** Ends xosand of a host; its member goes on. */
  async close(n: number): Promise<void> {
    const node = this.nodes[n]!
    const { keeper } = node
    node.keeper = null
    await keeper?.close()
  }

  /** A power cut: nothing of the host runs. */
  async fail(n: number): Promise<void> {
    await this.close(n)
    await this.rig.kill(this.nodes[n]!.host)
  }

  keeper(n: number): MemberKeeper {
    return this.nodes[n]!.keeper!
  }

  /** Waits until exactly these hosts have a member with a vote, and there is no other. */
  async settled(...numbers: readonly number[]): Promise<void> {
    const admin = this.rig.admin(numbers.map(n => this.nodes[n]!.host))
    const wanted = numbers.map(n => this.nodes[n]!.host.host).sort()
    try {
      await soon(async () => {
        const listed = await admin.members()
        const now = listed.map(({ name, learner }) => (learner || name === '' ? `${name}?` : name)).sort()
        if (now.join() !== wanted.join())
          throw new Error(`members are ${now.map(name => this.#numberOf(name)).join()}`)
        for (const n of numbers)
          await admin.status(
            { address: this.nodes[n]!.host.address, port: this.nodes[n]!.host.ports.client },
            1_000
          )
      })
    } catch (error) {
      throw new Error(`${String(error)}\n${this.log()}`, { cause: error })
    } finally {
      admin.close()
    }
  }

  /** What hosts said, for whoever looks at a failure. */
  log(): string {
    return this.nodes.map(({ host }, n) => `${n}: ${host.log.join('\n   ')}`).join('\n')
  }

  /** A client that knows the members as a host does, and is told of others. */
  client(n: number): EtcdCoordinator {
    const node = this.nodes[n]!
    const client = openEtcdCoordinator({
      target: { members: node.known, tls: this.rig.tls },
      namespace: 'xosan/test/1/',
      clock: createNodeClock(),
      random: nodeRandom,
    })
    this.#clients.push({ node, client })
    return client
  }

  async end(): Promise<void> {
    for (const { client } of this.#clients) await client.close()
    for (const keeper of this.#opened) await keeper.close()
    await this.rig.end()
  }

  readonly #clients: { readonly node: Node; readonly client: EtcdCoordinator }[] = []

  #numberOf(name: string): string {
    const n = this.nodes.findIndex(({ host }) => name.startsWith(host.host))
    return `${n}${name.endsWith('?') ? '?' : ''}`
  }

  #keeper(node: Node): MemberKeeper {
    const { tls } = this.rig
    const n = this.nodes.indexOf(node)
    const keeper: MemberKeeper = new MemberKeeper({
      place: node.host,
      program: 'etcd',
      programs: programsDirectory(),
      clock: createNodeClock(),
      random: nodeRandom,
      target: () => ({ members: node.known, tls }),
      hosts: async () =>
        this.nodes
          .filter(({ recorded }) => recorded)
          .map(each => ({ record: recordOf(each), leaving: each.leaving })),
      isUp: async host => this.#isUp(host),
      members: async members => {
        node.known = members
        for (const each of this.#clients) if (each.node === node) each.client.retarget({ members, tls })
      },
      log: text => {
        node.host.log.push(`${Math.round(performance.now())} ${text}`)
        this.stepping(n, text)
      },
      warn: text => {
        node.host.log.push(`${Math.round(performance.now())} WARNING ${text}`)
        this.warnings.push(`${n}: ${text}`)
      },
      timing: this.#timing,
    })
    this.#opened.push(keeper)
    return keeper
  }

  async #isUp(host: HostId): Promise<boolean> {
    return this.nodes.some(node => node.host.host === host && node.keeper !== null)
  }
}

const recordOf = ({ host, witness }: Node) => ({
  version: 1 as const,
  host: host.host,
  name: host.address,
  address: host.address,
  ports: { peer: 1, datapath: witness ? [] : [1], nbd: witness ? [] : [1], etcd: host.ports },
  datapaths: witness ? 0 : 1,
})

/** Changes the coordinator all the time, one change after the other. */
export class Writer {
  readonly #client: EtcdCoordinator
  readonly #ended: Promise<void>
  #stopping = false
  #revision = 0
  /** Changes that were certainly made. */
  count = 0
  /** Longest time between two changes, in milliseconds. */
  longestMs = 0

  constructor(client: EtcdCoordinator) {
    this.#client = client
    this.#ended = this.#write()
  }

  /** @throws Error when a change that was made is not there */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.#ended
    const { entry } = await soon(async () => this.#client.read('counter'))
    if (Number(entry?.value) < this.count)
      throw new Error(`${this.count} changes were made, ${entry?.value ?? 'none'} are there`)
  }

  async #write(): Promise<void> {
    let last = performance.now()
    let written = 0
    while (!this.#stopping) {
      try {
        const { committed, revision, current } = await this.#client.transact(
          [{ key: 'counter', revision: this.#revision }],
          [{ key: 'counter', value: String(written + 1) }]
        )
        if (committed) {
          written += 1
          this.count = written
          this.#revision = revision
          this.longestMs = Math.max(this.longestMs, performance.now() - last)
          last = performance.now()
        } else {
          // One that ended in doubt was made after all.
          this.#revision = current[0]?.revision ?? 0
          if (Number(current[0]?.value ?? 0) < written) throw new Error('a change is lost')
          written = Number(current[0]?.value ?? 0)
        }
      } catch (error) {
        if (error instanceof Error && error.message === 'a change is lost') throw error
      }
      await delay(10)
    }
  }
}
