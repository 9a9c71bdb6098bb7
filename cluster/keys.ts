/**
 * Where each record lives in the coordinator:
 *
 *     identity                           which coordinator this is (see catalogue/follower.ts)
 *     hosts/<host>                       where a host can be reached
 *     members/<host>                     the certificates by which a host is known (trust/members.ts)
 *     revoked                            certificates that etcd's members are to refuse
 *     srs/<sr>/record                    an SR and its configuration
 *     srs/<sr>/stores/<host>             a host's store of an SR, and its space
 *     srs/<sr>/volumes/<volume>/state    who may write a volume; changed by compare-and-swap only
 *     srs/<sr>/volumes/<volume>/info     what xapi calls it; cannot disturb the right to write
 *     srs/<sr>/tombstones/<replica>      a replica whose files may be deleted
 *
 * `state` and `info` are apart because xapi sets names and keys often: a compare-and-swap of one never makes one of
 * the other fail.
 */
import { XosanError } from '../core/errors.ts'
import { type HostId, type ReplicaId, type SrId, type VolumeKey } from '../core/units.ts'
import { volumeKey } from '../rpc/identifiers.ts'

/** What a key names. `other`: a key of a newer version, or a mistake. */
export type ParsedKey =
  | { readonly kind: 'identity' }
  | { readonly kind: 'host'; readonly host: HostId }
  | { readonly kind: 'member'; readonly host: HostId }
  | { readonly kind: 'revoked' }
  | { readonly kind: 'sr'; readonly sr: SrId }
  | { readonly kind: 'store'; readonly sr: SrId; readonly host: HostId }
  | { readonly kind: 'volume-state'; readonly sr: SrId; readonly volume: VolumeKey }
  | { readonly kind: 'volume-info'; readonly sr: SrId; readonly volume: VolumeKey }
  | { readonly kind: 'tombstone'; readonly sr: SrId; readonly replica: ReplicaId }
  | { readonly kind: 'other' }

export const IDENTITY_KEY = 'identity'
export const REVOKED_KEY = 'revoked'
export const HOSTS_PREFIX = 'hosts/'
export const MEMBERS_PREFIX = 'members/'
export const SRS_PREFIX = 'srs/'

/** Key of a host's record. @throws INVALID_ARGUMENT when the id is no UUID; so do all builders below */
export const hostKey = (host: HostId): string => `${HOSTS_PREFIX}${checked(host, 'host')}`
/** Key of what a host is known by. */
export const memberKey = (host: HostId): string => `${MEMBERS_PREFIX}${checked(host, 'host')}`
/** Prefix of everything that belongs to an SR. */
export const srPrefix = (sr: SrId): string => `${SRS_PREFIX}${checked(sr, 'SR')}/`
export const srKey = (sr: SrId): string => `${srPrefix(sr)}record`
export const storesPrefix = (sr: SrId): string => `${srPrefix(sr)}stores/`
export const storeKey = (sr: SrId, host: HostId): string => `${storesPrefix(sr)}${checked(host, 'host')}`
export const volumesPrefix = (sr: SrId): string => `${srPrefix(sr)}volumes/`
export const volumeStateKey = (sr: SrId, volume: VolumeKey): string =>
  `${volumesPrefix(sr)}${checked(volume, 'volume')}/state`
export const volumeInfoKey = (sr: SrId, volume: VolumeKey): string =>
  `${volumesPrefix(sr)}${checked(volume, 'volume')}/info`
export const tombstonesPrefix = (sr: SrId): string => `${srPrefix(sr)}tombstones/`
export const tombstoneKey = (sr: SrId, replica: ReplicaId): string =>
  `${tombstonesPrefix(sr)}${checked(replica, 'replica')}`

/** Tells what a key names; never throws, since keys come from other hosts. */
export function parseKey(key: string): ParsedKey {
  const parts = key.split('/')
  const [top, first, table, third, leaf] = parts
  if (key === IDENTITY_KEY) {
    return { kind: 'identity' }
  }
  if (key === REVOKED_KEY) {
    return { kind: 'revoked' }
  }
  if (top === 'hosts' && parts.length === 2 && isId(first)) {
    return { kind: 'host', host: first as HostId }
  }
  if (top === 'members' && parts.length === 2 && isId(first)) {
    return { kind: 'member', host: first as HostId }
  }
  if (top !== 'srs' || !isId(first)) {
    return { kind: 'other' }
  }
  const sr = first as SrId
  if (table === 'record' && parts.length === 3) {
    return { kind: 'sr', sr }
  }
  if (!isId(third)) {
    return { kind: 'other' }
  }
  if (table === 'stores' && parts.length === 4) {
    return { kind: 'store', sr, host: third as HostId }
  }
  if (table === 'tombstones' && parts.length === 4) {
    return { kind: 'tombstone', sr, replica: third as ReplicaId }
  }
  if (table === 'volumes' && parts.length === 5 && (leaf === 'state' || leaf === 'info')) {
    return { kind: leaf === 'state' ? 'volume-state' : 'volume-info', sr, volume: third as VolumeKey }
  }
  return { kind: 'other' }
}

/** All ids have one spelling, that of a volume's key. */
const isUuid = (text: string): boolean => volumeKey.safeParse(text).success

const isId = (text: string | undefined): text is string => text !== undefined && isUuid(text)

function checked(id: string, what: string): string {
  if (!isUuid(id)) {
    throw new XosanError('INVALID_ARGUMENT', { what: `the ${what} id "${id}"`, reason: 'it is no UUID' })
  }
  return id
}
