import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type HostControl } from '../../cli/lab/host-control.ts'
import { type LabUpOptions } from '../../cli/lab/lab-options.ts'
import { labDown, labHost, labUp } from '../../cli/lab/lab.ts'
import { type PoolHost, type PoolSr, type PoolVolume, createSr, createVolume } from '../../cli/lab/pool.ts'
import { programsDirectory } from '../../daemon/supervision/programs.ts'
import { showVolume } from '../../cli/lab/volume-watch.ts'

/** Datapath processes on each host. */
export const DATAPATHS = 2

/** What the lab is made of; by default hosts on the loopback that speak in clear. */
export interface TestLabOptions extends Pick<
  LabUpOptions,
  'netns' | 'coordinator' | 'tls' | 'witness' | 'powerCuts' | 'unsyncedBytesMax' | 'diskBytes'
> {
  /** Of each volume; by default two, where there are two hosts. */
  readonly copies?: number
}

/** A lab with an SR, in a temporary directory. */
export class TestLab {
  /** Holds the lab, the SR's disks, and whatever a test puts beside them. */
  readonly directory: string
  /** Those with data. */
  readonly hosts: readonly PoolHost[]
  readonly witness: PoolHost | null
  readonly sr: PoolSr
  /** Whether its hosts have links, which can be cut. */
  readonly netns: boolean
  readonly coordinator: 'embedded' | 'etcd'

  private constructor(
    directory: string,
    hosts: readonly PoolHost[],
    sr: PoolSr,
    { netns = false, coordinator = 'embedded' }: TestLabOptions
  ) {
    this.directory = directory
    this.netns = netns
    this.coordinator = coordinator
    this.hosts = hosts.filter(({ witness }) => witness !== true)
    this.witness = hosts.find(({ witness }) => witness === true) ?? null
    this.sr = sr
  }

  /** Starts the programs of dist/, as `npm run build` made them. */
  static async start(
    hosts: number,
    { copies = Math.min(2, hosts), ...options }: TestLabOptions = {}
  ): Promise<TestLab> {
    const directory = await mkdtemp(join(tmpdir(), 'xosan-test-'))
    try {
      const lab = join(directory, 'lab')
      // Where the bundled programs are can be chosen so that a drill can go on while dist/ is being rebuilt.
      const programs = process.env['XOSAN_TEST_PROGRAMS'] ?? programsDirectory()
      const wanted = { ...options, hosts, datapaths: DATAPATHS, programs }
      const report = await labUp(lab, wanted, () => undefined)
      const path = join(directory, 'disks')
      await mkdir(path, { mode: 0o700 })
      const where = options.diskBytes === undefined ? { path } : {}
      const sr = await createSr(report.hosts, randomUUID(), { ...where, copies: String(copies) })
      return new TestLab(directory, report.hosts, sr, options)
    } catch (error) {
      await labDown(join(directory, 'lab'), false, () => undefined).catch(() => undefined)
      await rm(directory, { recursive: true, force: true })
      throw error
    }
  }

  /** @param keep leaves the data for a look at what went wrong */
  async dispose(keep = false): Promise<void> {
    await labDown(this.labDirectory, keep, () => undefined)
    if (!keep) await rm(this.directory, { recursive: true, force: true })
  }

  control(host: PoolHost): Promise<HostControl> {
    return labHost(this.labDirectory, host.name)
  }

  get labDirectory(): string {
    return join(this.directory, 'lab')
  }

  /** @param size in bytes */
  createVolume(size: number): Promise<PoolVolume> {
    return createVolume(this.hosts[0]!, this.sr.sr, 'test', size)
  }

  /** Directories whose `xosan/` hold the hosts' stores: one for all, or of each its own. */
  get paths(): readonly string[] {
    const { path } = this.sr.deviceConfig
    return path === undefined ? this.hosts.map(host => this.storesOf(host)) : [path]
  }

  /** Where the stores of a host are that has a file system of its own. */
  storesOf({ name }: PoolHost): string {
    return join(this.labDirectory, name, 'stores')
  }

  host(uuid: string): PoolHost {
    const found = this.hosts.find(host => host.uuid === uuid)
    if (found === undefined) throw new Error(`no lab host has the UUID ${uuid}`)
    return found
  }

  /** Which host is what for a volume that is open. @param asked a host that knows */
  async roles(asked: PoolHost, volume: PoolVolume): Promise<Roles> {
    const { primary, replicas } = await showVolume(asked, volume)
    if (primary === null) throw new Error(`volume ${volume.key} is closed`)
    const secondary = replicas.find(({ host }) => host !== primary)
    const bystander = this.hosts.find(({ uuid }) => uuid !== primary && uuid !== secondary?.host)
    if (secondary === undefined || bystander === undefined) throw new Error('a role has no host')
    return { primary: this.host(primary), secondary: this.host(secondary.host), bystander }
  }
}

/** The primary with a local replica, the host of the other replica, and a host without one. */
export interface Roles {
  readonly primary: PoolHost
  readonly secondary: PoolHost
  readonly bystander: PoolHost
}
