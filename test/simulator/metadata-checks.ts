/**
 * What must be true of the metadata, seen from outside: every catalogue is the coordinator's past at the revision that it
 * names, and files and records belong together.
 */
import { Catalogue } from '../../catalogue/catalogue.ts'
import { parseKey } from '../../cluster/keys.ts'
import { parseTombstoneRecord } from '../../cluster/records.ts'
import { parseVolumeState } from '../../cluster/volume-state.ts'
import { type Change, type Entry } from '../../core/ports/coordinator.ts'
import { type ReplicaId } from '../../core/units.ts'
import { type SimulatedDaemon, volumesOnDisk } from './simulated-daemon.ts'
import { type SimulatedHost } from './simulated-host.ts'

interface Version {
  readonly revision: number
  readonly value: string | null
}

/** All that the coordinator ever held. */
export class CoordinatorHistory {
  readonly #versions = new Map<string, Version[]>()

  observe(revision: number, changes: readonly Change[]): void {
    for (const { key, value } of changes) {
      const versions = this.#versions.get(key)
      if (versions === undefined) this.#versions.set(key, [{ revision, value }])
      else versions.push({ revision, value })
    }
  }

  /** @returns how a catalogue differs from what the coordinator held at its revision, or null */
  difference(catalogue: Catalogue): string | null {
    const { revision } = catalogue.position()
    const entries = new Map(catalogue.records.list('').map(entry => [entry.key, entry]))
    for (const [key, versions] of this.#versions) {
      const version = versions.findLast(candidate => candidate.revision <= revision)
      const entry = entries.get(key)
      entries.delete(key)
      if ((version?.value ?? null) !== (entry?.value ?? null)) return `at revision ${revision} ${key} differs`
      if (entry !== undefined && entry.revision !== version!.revision)
        return `${key} has revision ${entry.revision} and not ${version!.revision}`
    }
    const [unknown] = entries.keys()
    return unknown === undefined ? null : `${unknown} was never in the coordinator`
  }
}

/** @returns what is wrong with a host's catalogue, or null; null too while it never followed */
export function checkCatalogue(history: CoordinatorHistory, daemon: SimulatedDaemon): string | null {
  const catalogue = new Catalogue(daemon.database.asOpened())
  if (catalogue.position().identity === null) return null
  const difference = history.difference(catalogue)
  return difference === null ? null : `P8: the catalogue of ${daemon.host.name} is no copy: ${difference}`
}

/**
 * Every replica of a finished volume has its files.
 * @param lost replicas that a fault has taken
 * @returns what is wrong, or null
 */
export function checkFilesOfRecords(
  entries: readonly Entry[],
  hosts: readonly SimulatedHost[],
  lost: ReadonlySet<ReplicaId> = new Set()
): string | null {
  for (const { key, value } of entries) {
    const parsed = parseKey(key)
    if (parsed.kind !== 'volume-state') continue
    const state = parseVolumeState(key, value)
    if (state.operation !== undefined) continue
    for (const { host, replica } of state.mirrors.flat()) {
      const holder = hosts.find(({ id }) => id === host)!
      if (lost.has(replica) || holder.disk.names.has(`volumes/${parsed.volume}`)) continue
      return `P1: the record of volume ${parsed.volume.slice(0, 8)} names a replica on ${holder.name}, which has no files of it`
    }
  }
  return null
}

/** What is half-done: operations that were begun, and replicas whose files are to be deleted. */
export function halfDone(entries: readonly Entry[]): string[] {
  return entries.flatMap(({ key, value }) => {
    const parsed = parseKey(key)
    if (parsed.kind === 'tombstone') {
      const { volume, replica } = parseTombstoneRecord(key, value)
      return [`a tombstone of replica ${replica.slice(0, 8)} of volume ${volume.slice(0, 8)}`]
    }
    if (parsed.kind !== 'volume-state') return []
    const { operation } = parseVolumeState(key, value)
    return operation === undefined ? [] : [`volume ${parsed.volume.slice(0, 8)} is ${operation.kind}`]
  })
}

/** Files of volumes of which no record names a replica on their host. */
export function orphans(entries: readonly Entry[], hosts: readonly SimulatedHost[]): string[] {
  const placed = new Set<string>()
  for (const { key, value } of entries) {
    const parsed = parseKey(key)
    if (parsed.kind !== 'volume-state') continue
    for (const { host } of parseVolumeState(key, value).mirrors.flat()) placed.add(`${host} ${parsed.volume}`)
  }
  return hosts.flatMap(host =>
    volumesOnDisk(host)
      .filter(volume => !placed.has(`${host.id} ${volume}`))
      .map(volume => `files of volume ${volume.slice(0, 8)} on ${host.name}`)
  )
}
