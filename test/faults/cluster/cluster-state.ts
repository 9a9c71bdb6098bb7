/** How a lab's cluster is: whole again after a fault, which members its etcd has, and what its volumes' replicas hold. */
import { execFile } from 'node:child_process'
import { copyFile, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { DaemonClient } from '../../../cli/daemon-client.ts'
import { compareFiles } from '../../../cli/lab/compare-files.ts'
import { labCommand, labJoin } from '../../../cli/lab/lab-links.ts'
import { type PoolHost, type PoolVolume } from '../../../cli/lab/pool.ts'
import { replicaFiles, showVolume } from '../../../cli/lab/volume-watch.ts'
import { type ControlResult } from '../../../rpc/control-api.ts'
import { type TestLab } from '../../support/test-lab.ts'
import { until } from './bounded.ts'
import { type EtcdMemberStatus } from './etcd-member-status.ts'

const run = promisify(execFile)

const ETCD_STATUS = fileURLToPath(new URL('./etcd-status.ts', import.meta.url))
/** Generous: the program has to be compiled, maybe on a machine that is busy with a drill. */
const STATUS_TIMEOUT_MS = 60_000
/** A member of etcd that was away for long is given its leader's state anew. */
const WHOLE_DEADLINE_MS = 120_000
const IN_SYNC_DEADLINE_MS = 120_000
/** A takeover compares the replicas in the background; they must be equal within this time. */
const EQUAL_DEADLINE_MS = 30_000

/** Every host of a lab, the witness too. */
export const allHosts = (lab: TestLab): readonly PoolHost[] =>
  lab.witness === null ? lab.hosts : [...lab.hosts, lab.witness]

/** How many members of etcd a cluster of so many hosts has. */
export function etcdMembersWanted(lab: TestLab): number {
  if (lab.coordinator === 'embedded') return 0
  const hosts = allHosts(lab).length
  return hosts < 3 ? 1 : hosts < 7 ? 3 : 5
}

/** Heals every fault: links join, what is stopped goes on, what is dead is started. Resolves when all answers. */
export async function heal(lab: TestLab): Promise<void> {
  if (lab.netns) await labJoin(lab.labDirectory, null)
  await Promise.all(
    allHosts(lab).map(async host => {
      const control = await lab.control(host)
      await control.resume()
      await control.start()
    })
  )
}

/**
 * Waits until every host is up, reaches the coordinator, and all members of etcd follow one leader.
 *
 * @param asksEtcd whether the members are asked themselves, which takes a program and some seconds
 */
export async function untilWhole(lab: TestLab, asksEtcd = true): Promise<void> {
  await until('the cluster is whole', WHOLE_DEADLINE_MS, async () => {
    for (const host of allHosts(lab)) {
      const { cluster, coordinator, datapaths } = await statusOf(host)
      if (!coordinator.reachable) return `${host.name} does not reach the coordinator`
      if (datapaths.some(({ up }) => !up)) return `a datapath process of ${host.name} is down`
      const members = cluster?.etcdMembers.length ?? 0
      if (members !== etcdMembersWanted(lab)) return `${host.name} knows ${members} members of etcd`
    }
    if (!asksEtcd) return null
    const unhealthy = (await etcdStatus(lab)).filter(({ state }) => state?.healthy !== true || state.learner)
    if (unhealthy.length === 0) return null
    return `etcd is not healthy on ${unhealthy.map(({ host }) => nameOf(lab, host)).join(', ')}`
  })
}

async function statusOf(host: PoolHost): Promise<ControlResult<'status'>> {
  const daemon = new DaemonClient(host.controlSocket)
  try {
    return await daemon.call('status', {})
  } finally {
    daemon.close()
  }
}

export const nameOf = (lab: TestLab, uuid: string): string =>
  allHosts(lab).find(host => host.uuid === uuid)?.name ?? uuid

/** What each member of etcd says of itself, asked from one host. */
export async function etcdStatus(lab: TestLab, from = lab.hosts[0]!): Promise<EtcdMemberStatus[]> {
  if (lab.coordinator === 'embedded') return []
  const { paths } = await lab.control(from)
  const command = [process.execPath, '--import', 'tsx', ETCD_STATUS, paths.state]
  const [program, ...words] = lab.netns ? await labCommand(lab.labDirectory, from.name, command) : command
  const { stdout } = await run(program!, words, { timeout: STATUS_TIMEOUT_MS })
  return JSON.parse(stdout) as EtcdMemberStatus[]
}

/** Waits until every replica of a volume is in-sync, as a host sees it. */
export async function untilInSync(host: PoolHost, volume: PoolVolume): Promise<void> {
  await until('all replicas are in-sync', IN_SYNC_DEADLINE_MS, async () => {
    const { replicas } = await showVolume(host, volume)
    const others = replicas.filter(({ state }) => state !== 'in-sync')
    return others.length === 0
      ? null
      : others.map(({ hostName, state }) => `${hostName} is ${state}`).join(', ')
  })
}

/**
 * Compares the raw files of all replicas, and waits a little for them to be equal.
 *
 * @returns how many bytes were compared @throws Error with the first byte that differs
 */
export async function compareReplicas(lab: TestLab, volume: PoolVolume): Promise<number> {
  let compared = 0
  const [first, ...others] = await filesOf(lab, volume)
  await until('the replicas are equal', EQUAL_DEADLINE_MS, async () => {
    let bytes = 0
    for (const other of others) {
      const comparison = await compareFiles(first!, other, volume.size)
      if (comparison.firstDifference !== null) return `byte ${comparison.firstDifference} differs`
      bytes += comparison.bytes
    }
    compared = bytes
    return null
  })
  return compared
}

/** Shows that the comparison can fail: one byte of a copy is changed, and must be found where it is. */
export async function findsPlantedByte(lab: TestLab, volume: PoolVolume): Promise<boolean> {
  const [first, second] = await filesOf(lab, volume)
  const copy = join(lab.directory, 'planted')
  await copyFile(first!, copy)
  const file = await open(copy, 'r+')
  const position = Math.floor(volume.size / 3)
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, position)
  byte[0]! ^= 1
  await file.write(byte, 0, 1, position)
  await file.close()
  const { firstDifference } = await compareFiles(copy, second!, volume.size)
  await rm(copy)
  return firstDifference === position
}

async function filesOf(lab: TestLab, volume: PoolVolume): Promise<string[]> {
  const files = [...(await replicaFiles(lab.paths, volume)).values()]
  if (files.length < 2) throw new Error(`${files.length} replica files found`)
  return files
}
