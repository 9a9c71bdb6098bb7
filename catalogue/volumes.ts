import type Database from 'better-sqlite3'
import { volumeInfoKey, volumeStateKey, volumesPrefix } from '../cluster/keys.ts'
import { parseVolumeInfo, parseVolumeState } from '../cluster/volume-state.ts'
import { XosanError } from '../core/errors.ts'
import { type VolumeInfo, type VolumeState } from '../core/mirror/volume-record.ts'
import { type HostId, type SrId, type VolumeKey } from '../core/units.ts'
import { type Records } from './records.ts'

/** A volume as the coordinator has it. The revisions are what a compare-and-swap of the record needs. */
export interface CataloguedVolume {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly state: VolumeState
  readonly stateRevision: number
  readonly info: VolumeInfo
  /** 0 when the record is missing. */
  readonly infoRevision: number
}

const INFO_END = '/info'
const STATE_END = '/state'

/** What a volume is called whose `info` is missing: it is a volume all the same. */
const NO_INFO: VolumeInfo = { version: 1, name: '', description: '', keys: {} }

export class Volumes {
  readonly #records: Records
  readonly #put: Database.Statement<[SrId, VolumeKey, HostId | null]>
  readonly #remove: Database.Statement<[SrId, VolumeKey]>
  readonly #find: Database.Statement<[VolumeKey], SrId>
  readonly #count: Database.Statement<[SrId], number>
  readonly #withPrimary: Database.Statement<[HostId], { sr: SrId; volume: VolumeKey }>

  constructor(database: Database.Database, records: Records) {
    this.#records = records
    this.#put = database.prepare('INSERT INTO volumes (sr, volume, primary_host) VALUES (?, ?, ?)')
    this.#remove = database.prepare('DELETE FROM volumes WHERE sr = ? AND volume = ?')
    this.#find = database
      .prepare<[VolumeKey], SrId>('SELECT sr FROM volumes WHERE volume = ? ORDER BY sr LIMIT 1')
      .pluck()
    this.#count = database.prepare<[SrId], number>('SELECT count(*) FROM volumes WHERE sr = ?').pluck()
    this.#withPrimary = database.prepare(
      'SELECT sr, volume FROM volumes WHERE primary_host = ? ORDER BY sr, volume'
    )
  }

  /**
   * One volume, or null when there is none.
   * @throws RECORD_INVALID when there is one that this version cannot read
   */
  get(sr: SrId, volume: VolumeKey): CataloguedVolume | null {
    const state = this.#records.get(volumeStateKey(sr, volume))
    if (state === null) {
      return null
    }
    const info = this.#records.get(volumeInfoKey(sr, volume))
    return {
      sr,
      volume,
      state: parseVolumeState(state.key, state.value),
      stateRevision: state.revision,
      info: info === null ? NO_INFO : parseVolumeInfo(info.key, info.value),
      infoRevision: info?.revision ?? 0,
    }
  }

  /** The SR that a volume is in, or null. */
  find(volume: VolumeKey): SrId | null {
    return this.#find.get(volume) ?? null
  }

  /**
   * All volumes of an SR, sorted by key.
   * @throws RECORD_INVALID when this version cannot read one of them: xapi forgets what a list leaves out
   */
  list(sr: SrId): CataloguedVolume[] {
    return this.map(sr, volume => volume)
  }

  /**
   * What is made of each volume of an SR, in the order of their keys. Ten thousand volumes are never in memory at once
   * then: holding them costs more than reading them.
   * @param make must not change the catalogue; null leaves the volume out
   * @throws RECORD_INVALID as `list`, and what `make` throws
   */
  map<Result>(sr: SrId, make: (volume: CataloguedVolume) => Result | null): Result[] {
    const prefix = volumesPrefix(sr)
    const [problem] = this.#records.problems(prefix)
    if (problem !== undefined) {
      throw new XosanError('RECORD_INVALID', { key: problem.key, reason: problem.reason })
    }
    const results: Result[] = []
    let infoOf: string | null = null
    let info = NO_INFO
    let infoRevision = 0
    // These texts passed their schemas when they came in (`catalogue.ts`). Checking ten thousand of them again would
    // take most of a second of every scan.
    this.#records.forEach(prefix, (key, value, revision) => {
      // Keys without a problem are `<prefix><volume>/info` or `/state`; the `info` of a volume comes first.
      if (key.endsWith(INFO_END)) {
        infoOf = key.slice(prefix.length, -INFO_END.length)
        info = JSON.parse(value) as VolumeInfo
        infoRevision = revision
        return
      }
      const volume = key.slice(prefix.length, -STATE_END.length) as VolumeKey
      // An `info` without a state is no volume.
      const own = infoOf === volume ? { info, infoRevision } : { info: NO_INFO, infoRevision: 0 }
      const state = JSON.parse(value) as VolumeState
      const result = make({ sr, volume, state, stateRevision: revision, ...own })
      if (result !== null) results.push(result)
    })
    return results
  }

  /** Volumes of an SR whose record names an operation that was begun. Those that cannot be read are left out. */
  halfDone(sr: SrId): VolumeKey[] {
    const prefix = volumesPrefix(sr)
    const unreadable = new Set(this.#records.problems(prefix).map(({ key }) => key))
    const keys: VolumeKey[] = []
    this.#records.forEach(prefix, (key, value) => {
      if (!key.endsWith(STATE_END) || unreadable.has(key)) return
      const { operation } = JSON.parse(value) as VolumeState
      if (operation !== undefined) keys.push(key.slice(prefix.length, -STATE_END.length) as VolumeKey)
    })
    return keys
  }

  /** How many volumes an SR has, with those that cannot be read. */
  count(sr: SrId): number {
    return this.#count.get(sr)!
  }

  /** Volumes whose record names a host as primary. */
  withPrimary(host: HostId): { readonly sr: SrId; readonly volume: VolumeKey }[] {
    return this.#withPrimary.all(host)
  }

  /** @param state null when the record is there but cannot be read */
  put(sr: SrId, volume: VolumeKey, state: VolumeState | null): void {
    this.#put.run(sr, volume, state?.primary ?? null)
  }

  remove(sr: SrId, volume: VolumeKey): void {
    this.#remove.run(sr, volume)
  }
}
