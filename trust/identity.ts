import { type HostId, type SrId } from '../core/units.ts'
import { hostId, srId } from '../rpc/identifiers.ts'

/** What an authority vouches for: the hosts of one SR, in one generation of it. */
export interface TrustScope {
  readonly sr: SrId
  /** Raised when the SR is recovered; certificates of a lower one are worthless. */
  readonly generation: number
}

/** Who a certificate says its owner is. */
export interface HostIdentity extends TrustScope {
  readonly host: HostId
}

const FORM = /^xosan:\/\/([^/]+)\/([1-9][0-9]{0,9})\/host\/([^/]+)$/

/** The name of a host in its certificate: `xosan://<sr>/<generation>/host/<host>`. */
export const identityUri = ({ sr, generation, host }: HostIdentity): string =>
  `xosan://${sr}/${generation}/host/${host}`

/** Reads such a name. @returns null for anything else, also for another spelling of one */
export function parseIdentityUri(uri: string): HostIdentity | null {
  const [, srText, generation, hostText] = FORM.exec(uri) ?? []
  const sr = srId.safeParse(srText)
  const host = hostId.safeParse(hostText)
  if (!sr.success || !host.success) return null
  return { sr: sr.data, generation: Number(generation), host: host.data }
}
