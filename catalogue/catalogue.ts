/**
 * What this host knows: a copy of every record of the coordinator, tables that answer questions about them quickly,
 * and the register of this host's own replicas. `docs/internals/catalogue.md` tells what relies on it.
 */
import type Database from 'better-sqlite3'
import { type ParsedKey, parseKey } from '../cluster/keys.ts'
import {
  type TombstoneRecord,
  parseHostRecord,
  parseMemberRecord,
  parseSrRecord,
  parseStoreRecord,
  parseTombstoneRecord,
} from '../cluster/records.ts'
import { parseVolumeInfo, parseVolumeState } from '../cluster/volume-state.ts'
import { XosanError } from '../core/errors.ts'
import { type VolumeState } from '../core/mirror/volume-record.ts'
import { type Entry, type WatchEvent } from '../core/ports/coordinator.ts'
import { Hosts } from './hosts.ts'
import { LocalReplicas } from './local-replicas.ts'
import { type FollowPosition, Position } from './position.ts'
import { type RecordProblem, Records } from './records.ts'
import { Replicas } from './replicas.ts'
import { Srs } from './srs.ts'
import { Stores } from './stores.ts'
import { Tombstones } from './tombstones.ts'
import { Volumes } from './volumes.ts'

/**
 * Number of the rules by which `examine` reads records; raised with every change of a schema in `cluster/`. Records
 * that were examined by other rules are examined again when the catalogue is opened.
 */
const EXAMINATION = 1

/** All changes of one revision of the coordinator. */
export interface RevisionBatch {
  readonly revision: number
  readonly events: readonly WatchEvent[]
}

/** What a transaction on the catalogue changed. */
export interface Applied {
  readonly keys: readonly string[]
  /** Changed records that this version cannot read. */
  readonly problems: readonly RecordProblem[]
}

export class Catalogue {
  readonly records: Records
  readonly hosts: Hosts
  readonly srs: Srs
  readonly stores: Stores
  readonly volumes: Volumes
  readonly replicas: Replicas
  readonly tombstones: Tombstones
  readonly localReplicas: LocalReplicas
  readonly #database: Database.Database
  readonly #position: Position

  /** @param database opened and migrated by `open.ts` */
  constructor(database: Database.Database) {
    this.#database = database
    this.#position = new Position(database)
    this.records = new Records(database)
    this.hosts = new Hosts(this.records)
    this.srs = new Srs(database, this.records)
    this.stores = new Stores(this.records)
    this.volumes = new Volumes(database, this.records)
    this.replicas = new Replicas(database)
    this.tombstones = new Tombstones(database, this.records)
    this.localReplicas = new LocalReplicas(database)
    if (this.#position.examinedAs() !== EXAMINATION) {
      this.#examineAll()
    }
  }

  /** How far the catalogue has followed which coordinator. */
  position(): FollowPosition {
    return this.#position.get()
  }

  /** Applies revisions, and the position after them, in one transaction: after a crash all of it is there, or none. */
  apply(batches: readonly RevisionBatch[]): Applied {
    return this.#transaction(changes => {
      for (const { revision, events } of batches) {
        for (const { key, value } of events) {
          if (value === null) {
            changes.remove(key)
          } else {
            changes.put({ key, value, revision })
          }
        }
      }
      const last = batches.at(-1)
      if (last !== undefined) {
        this.#position.set({ ...this.#position.get(), revision: last.revision })
      }
    })
  }

  /** Makes the catalogue equal to a complete list of the coordinator's entries, in one transaction. */
  replaceAll(entries: readonly Entry[], position: FollowPosition): Applied {
    return this.#transaction(changes => {
      const known = new Map(this.records.list('').map(({ key, revision }) => [key, revision]))
      for (const entry of entries) {
        if (known.get(entry.key) !== entry.revision) {
          changes.put(entry)
        }
        known.delete(entry.key)
      }
      for (const gone of known.keys()) {
        changes.remove(gone)
      }
      this.#position.set(position)
    })
  }

  close(): void {
    this.#database.close()
  }

  #transaction(action: (changes: { put(entry: Entry): void; remove(key: string): void }) => void): Applied {
    const changed = new Map<string, string | null>()
    this.#database
      .transaction(() =>
        action({
          put: entry => changed.set(entry.key, this.#put(entry)),
          remove: key => {
            this.#forgetDerived(parseKey(key))
            this.records.remove(key)
            changed.set(key, null)
          },
        })
      )
      .immediate()
    const problems: RecordProblem[] = []
    for (const [key, reason] of changed) {
      if (reason !== null) {
        problems.push({ key, reason })
      }
    }
    return { keys: [...changed.keys()], problems }
  }

  /** @returns why the record cannot be read, or null */
  #put(entry: Entry): string | null {
    const key = parseKey(entry.key)
    const examined = examine(key, entry)
    this.#forgetDerived(key)
    this.#derive(key, examined)
    const problem = examined.kind === 'problem' ? examined.reason : null
    this.records.put(entry, problem)
    return problem
  }

  #derive(key: ParsedKey, examined: Examined): void {
    if (key.kind === 'volume-state') {
      const state = examined.kind === 'state' ? examined.state : null
      this.volumes.put(key.sr, key.volume, state)
      if (state !== null) {
        this.replicas.put(key.sr, key.volume, state)
      }
    } else if (key.kind === 'tombstone' && examined.kind === 'tombstone') {
      this.tombstones.put(key.sr, examined.tombstone)
    } else if (key.kind === 'sr') {
      this.srs.put(key.sr)
    }
  }

  #forgetDerived(key: ParsedKey): void {
    if (key.kind === 'volume-state') {
      this.volumes.remove(key.sr, key.volume)
      this.replicas.remove(key.sr, key.volume)
    } else if (key.kind === 'tombstone') {
      this.tombstones.remove(key.sr, key.replica)
    } else if (key.kind === 'sr') {
      this.srs.remove(key.sr)
    }
  }

  #examineAll(): void {
    this.#transaction(changes => {
      this.records.list('').forEach(entry => changes.put(entry))
      this.#position.setExaminedAs(EXAMINATION)
    })
  }
}

type Examined =
  | { readonly kind: 'state'; readonly state: VolumeState }
  | { readonly kind: 'tombstone'; readonly tombstone: TombstoneRecord }
  | { readonly kind: 'readable' }
  | { readonly kind: 'problem'; readonly reason: string }

/** Reads a record that came from outside. Never throws: one bad record must not keep the others away. */
function examine(key: ParsedKey, entry: Entry): Examined {
  try {
    return readRecord(key, entry)
  } catch (error) {
    if (error instanceof XosanError && error.code === 'RECORD_INVALID') {
      return { kind: 'problem', reason: String(error.parameters['reason']) }
    }
    throw error
  }
}

function readRecord(parsed: ParsedKey, { key, value }: Entry): Examined {
  switch (parsed.kind) {
    case 'identity':
    // A list in PEM, which whoever uses it checks.
    case 'revoked':
      return { kind: 'readable' }
    case 'host':
      return named(parsed.host, parseHostRecord(key, value).host)
    case 'member':
      return named(parsed.host, parseMemberRecord(key, value).host)
    case 'sr':
      return named(parsed.sr, parseSrRecord(key, value).sr)
    case 'store':
      return named(parsed.host, parseStoreRecord(key, value).host)
    case 'volume-info':
      parseVolumeInfo(key, value)
      return { kind: 'readable' }
    case 'volume-state':
      return { kind: 'state', state: parseVolumeState(key, value) }
    case 'tombstone': {
      const tombstone = parseTombstoneRecord(key, value)
      const checked = named(parsed.replica, tombstone.replica)
      return checked.kind === 'problem' ? checked : { kind: 'tombstone', tombstone }
    }
    case 'other':
      return { kind: 'problem', reason: 'this version does not know such a key' }
  }
}

/** A record under the key of another would be acted on in the wrong place. */
function named(inKey: string, inRecord: string): Examined {
  return inKey === inRecord
    ? { kind: 'readable' }
    : { kind: 'problem', reason: `it is about ${inRecord}, its key about ${inKey}` }
}
