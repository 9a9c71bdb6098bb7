import { X509Certificate } from 'node:crypto'
import { XosanError } from '../../core/errors.ts'
import { type HostId, type SrId } from '../../core/units.ts'
import { type ControlResult } from '../../rpc/control-api.ts'
import { createHostKey } from '../../trust/authority.ts'
import { certificateFacts, certificatesIn, fingerprintOf } from '../../trust/certificate.ts'
import { signerOf, troubleWith } from '../../trust/issued-certificate.ts'
import { type Member } from '../../trust/members.ts'
import { type TrustDirectory } from '../../trust/trust-directory.ts'
import { type ClusterFile } from './cluster-file.ts'
import { type HostCluster } from './host-cluster.ts'

interface StepsOptions {
  /** Name of this host. */
  readonly host: string
  readonly cluster: Pick<HostCluster, 'toldMembers'> & { readonly file: Pick<ClusterFile, 'sr'> | null }
  readonly directory: () => Promise<TrustDirectory>
  /** Who succeeds now, as the coordinator says; undefined when nobody does, null when it cannot be asked. */
  readonly successor: (sr: SrId, withinMs: number) => Promise<HostId | undefined | null>
  /** Saves the list of revoked certificates that is published. */
  readonly revocationsCurrent: () => Promise<void>
  /** Makes all programs of this host look at its keys again. */
  readonly reload: () => Promise<void>
  readonly renewal: {
    trust(authoritiesPem: string): void
    adopt(own: { readonly keyPem: string; readonly certificatePem: string }): void
  }
  /** Makes this host's member of etcd, if it has one, read what it trusts again. */
  readonly etcdRestarted: () => Promise<void>
}

/** A host that knows nobody any more must not wait long for what it cannot be told. */
const FIRST_LOOK_MS = 3_000
/** Meanwhile members of etcd are restarted, and it may take a moment until there are enough of them. */
const LOOK_MS = 30_000

/** As `cluster.trust` has it. */
interface AuthorityToTrust {
  readonly sr: SrId
  readonly by: HostId
  readonly authorityPem: string
  readonly alone: boolean
  readonly members: readonly Member[]
}

/** As `cluster.certify` has it. */
interface CertificateToUse {
  readonly sr: SrId
  readonly certificatePem: string
  readonly members: readonly Member[]
}

/** What every host does when another one takes the place of the one that held the authority. One thing at a time. */
export class SuccessionSteps {
  readonly #options: StepsOptions
  /** The key that was last asked for; it gets on disk with its certificate only. */
  #requested: { readonly keyPem: string; readonly csrPem: string } | null = null
  #queue: Promise<unknown> = Promise.resolve()

  constructor(options: StepsOptions) {
    this.#options = options
  }

  /**
   * Trusts another authority, the one to be certified by from now on. Said late, when it is over, nothing is changed.
   * @throws XosanError NOT_IN_CLUSTER; INVALID_ARGUMENT when it would shut this host out, and for who succeeds nobody;
   *   SUCCESSION_WAITS when the coordinator cannot be asked about that
   */
  async trust({ sr, by, authorityPem, alone, members }: AuthorityToTrust): Promise<void> {
    await this.#inTurn(sr, async () => {
      const { host, cluster, directory, successor, revocationsCurrent, reload } = this.#options
      const { renewal, etcdRestarted } = this.#options
      if (!isAuthority(authorityPem)) throw invalid('it is not one')
      let now = await successor(sr, FIRST_LOOK_MS)
      if (now === null) {
        // Perhaps because this host knows nobody any more who could answer.
        await cluster.toldMembers(members)
        now = await successor(sr, LOOK_MS)
      }
      // What comes late may be of a host that has been succeeded itself, and would be trusted by this host for ever.
      if (now === null) {
        const reason = 'it cannot ask the coordinator who takes that place'
        throw new XosanError('SUCCESSION_WAITS', { host, reason })
      }
      if (now !== by) throw invalid('its host does not succeed another one now')
      // For the datapath processes, too, each of which has its own connections to the coordinator.
      await cluster.toldMembers(members)
      // A list of revoked certificates that only an authority of before has signed cannot be kept without it.
      await revocationsCurrent()
      const files = await directory()
      const trusted = certificatesIn((await files.credentials())?.authoritiesPem ?? '')
      const others = trusted.filter(each => each !== authorityPem)
      if (alone && others.length === trusted.length) throw invalid('this host has not heard of it before')
      const authoritiesPem = (alone ? [authorityPem] : [...others, authorityPem]).join('')
      await files.saveAuthorities(authoritiesPem)
      await reload()
      renewal.trust(authoritiesPem)
      await etcdRestarted()
    })
  }

  /**
   * Makes a key for the certificate that is to come; null when this host has one that is good.
   * @param listed fingerprints on the record of this host
   * @throws XosanError NOT_IN_CLUSTER
   */
  async request(sr: SrId, listed: readonly string[]): Promise<ControlResult<'cluster.request'>> {
    return this.#inTurn(sr, async () => {
      const { certificatePem, authority } = await this.#own()
      const inUse = fingerprintOf(certificatePem)
      const revoked = await (await this.#options.directory()).revoked()
      const isGood = listed.includes(inUse) && !revoked.includes(certificateFacts(certificatePem)!.serial)
      if (isGood && signerOf(certificatePem, authority) !== null) return null
      this.#requested = await createHostKey()
      return { csrPem: this.#requested.csrPem, inUse }
    })
  }

  /** Uses the certificate of that key. @throws XosanError NOT_IN_CLUSTER, CERTIFICATE_REFUSED */
  async certify({ sr, certificatePem, members }: CertificateToUse): Promise<void> {
    await this.#inTurn(sr, async () => {
      const { cluster, directory, reload, renewal } = this.#options
      const { identity, authority } = await this.#own()
      const refused = (reason: string): XosanError =>
        new XosanError('CERTIFICATE_REFUSED', { host: identity.host, reason })
      if (this.#requested === null) throw refused('nobody has asked for its key')
      const own = { keyPem: this.#requested.keyPem, certificatePem }
      const trouble = troubleWith({ identity, ...own }, authority, new Date())
      if (trouble !== null) throw refused(trouble)
      await cluster.toldMembers(members)
      await (await directory()).saveCertificate(own)
      this.#requested = null
      renewal.adopt(own)
      await reload()
    })
  }

  async #own() {
    const credentials = await (await this.#options.directory()).credentials()
    if (credentials === null) throw new XosanError('NOT_IN_CLUSTER', {})
    return { ...credentials, authority: certificatesIn(credentials.authoritiesPem).at(-1)! }
  }

  async #inTurn<T>(sr: SrId, action: () => Promise<T>): Promise<T> {
    const mine = this.#queue.then(async () => {
      if (this.#options.cluster.file?.sr !== sr) throw new XosanError('NOT_IN_CLUSTER', {})
      return action()
    })
    this.#queue = mine.catch(() => undefined)
    return mine
  }
}

function isAuthority(pem: string): boolean {
  const certificates = certificatesIn(pem)
  if (certificates.length !== 1 || certificates[0] !== pem) return false
  try {
    return new X509Certificate(pem).ca
  } catch {
    return false
  }
}

const invalid = (reason: string): XosanError =>
  new XosanError('INVALID_ARGUMENT', { what: 'the authority to trust', reason })
