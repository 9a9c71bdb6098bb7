import { type ByteLength, type HostId, type StoreId, byteLength } from '../units.ts'

/** A host with a store of the SR, as far as placement needs it. Space is that of the store's file system, in bytes. */
export interface PlacementHost {
  readonly host: HostId
  readonly store: StoreId
  readonly total: ByteLength
  readonly free: ByteLength
  /** Hosts of one domain are expected to fail together (a rack, a power feed); absent: the host fails alone. */
  readonly failureDomain?: string
}

/**
 * What must stay free on each store for the volumes that it already holds: volumes are thin and grow after they were
 * placed.
 */
export type Headroom =
  { readonly unit: 'fraction'; readonly amount: number } | { readonly unit: 'bytes'; readonly amount: number }

/** Bytes of a store that are kept for the growth of what is on it. */
export const headroomBytes = ({ total }: PlacementHost, headroom: Headroom): ByteLength =>
  byteLength(headroom.unit === 'bytes' ? headroom.amount : Math.ceil(total * headroom.amount))

/** Bytes that new volumes may still use; zero or less when the store takes no new volume. */
export const roomOf = (host: PlacementHost, headroom: Headroom): number =>
  host.free - headroomBytes(host, headroom)

/** Two hosts of one domain fail together. Prefixed, so that no domain's name can be taken for a host. */
export const domainOf = ({ host, failureDomain }: PlacementHost): string =>
  failureDomain === undefined ? `host ${host}` : `domain ${failureDomain}`
