import { constants } from 'node:fs'
import { mkdir, open, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { hasCode, reasonOf, XosanError } from '../core/errors.ts'
import { type Authority } from './authority.ts'
import { certificateFacts, certificatesIn } from './certificate.ts'
import { CertificateAuthority, type IssuedStore } from './certificate-authority.ts'
import { type HostIdentity } from './identity.ts'
import { type IssuedCertificate, issuedSchema, issuedText } from './issued.ts'
import { signerOf } from './issued-certificate.ts'
import { memberSchema } from './member-text.ts'
import { type Member } from './members.ts'
import { readRevocationList } from './revocation.ts'

/** What a process needs to speak for its host. */
export interface HostCredentials {
  readonly identity: HostIdentity
  readonly certificatePem: string
  readonly keyPem: string
  /** Certificates of the authorities that are trusted, one after another: two while one succeeds the other. */
  readonly authoritiesPem: string
}

/** Key and certificate are one file: replaced apart, a crash between would leave two that do not fit. */
const HOST_FILE = 'host.pem'
const AUTHORITIES_FILE = 'authorities.pem'
/** On one host only. */
const AUTHORITY_FILE = 'authority.pem'
/** Beside the authority: what it has issued. */
const ISSUED_FILE = 'issued.json'
const MEMBERS_FILE = 'members.json'
/** For etcd's gate, which asks no list of members. */
const REVOKED_FILE = 'revoked.pem'
/** Some hundred members take a tenth of this. */
const FILE_BYTES_MAX = 1024 * 1024

const KEY = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n/
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/

const membersSchema = z.strictObject({ version: z.literal(1), members: z.array(memberSchema) })

/**
 * The directory of a host's keys and certificates for one SR: mode 0700, its files 0600, all of the user that runs
 * XOSAN. What others could read or change is refused, not repaired: somebody has to decide what that means.
 *
 * Files are replaced as a whole: who reads, also after a kill or a power cut, sees the old one or the new one.
 */
export class TrustDirectory implements IssuedStore {
  /** The last change under way of each directory, for which several objects may stand. */
  static readonly #changes = new Map<string, Promise<unknown>>()

  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  /** Opens a directory, and makes it when it is missing. @throws XosanError TRUST_FILE_UNSAFE */
  static async open(path: string): Promise<TrustDirectory> {
    await mkdir(path, { recursive: true, mode: 0o700 })
    const handle = await openSafely(path, constants.O_DIRECTORY)
    try {
      await check(path, handle)
    } finally {
      await handle.close()
    }
    return new TrustDirectory(path)
  }

  /** @returns null for a host that has not joined @throws XosanError TRUST_FILE_UNSAFE also when they do not fit together */
  async credentials(): Promise<HostCredentials | null> {
    const [host, authoritiesPem] = [await this.#read(HOST_FILE), await this.#read(AUTHORITIES_FILE)]
    if (host === null || authoritiesPem === null) return null
    const { keyPem, certificatePem } = this.#pair(HOST_FILE, host)
    const identity = certificateFacts(certificatePem)?.identity
    if (identity == null) throw unsafe(this.#path(HOST_FILE), 'its certificate names no host')
    return { identity, certificatePem, keyPem, authoritiesPem }
  }

  /**
   * Keeps a key with its certificate, and the authorities to trust. The authorities go first: a host that was killed
   * between trusts one more than it needs, and has credentials that work.
   */
  async saveCredentials(credentials: Omit<HostCredentials, 'identity'>): Promise<void> {
    await this.#inTurn(async () => {
      await this.#replace(AUTHORITIES_FILE, credentials.authoritiesPem)
      await this.#replace(HOST_FILE, credentials.keyPem + credentials.certificatePem)
    })
  }

  /** Replaces the host's key and certificate alone. */
  async saveCertificate({
    keyPem,
    certificatePem,
  }: Pick<HostCredentials, 'keyPem' | 'certificatePem'>): Promise<void> {
    await this.#inTurn(async () => this.#replace(HOST_FILE, keyPem + certificatePem))
  }

  /**
   * Replaces the authorities to trust, the one to be certified by last: for a succession.
   * @throws XosanError INVALID_ARGUMENT when this host's own certificate, or the list of revoked ones, is of none of them:
   *   without them nobody would let this host in
   */
  async saveAuthorities(authoritiesPem: string): Promise<void> {
    const invalid = (reason: string): XosanError =>
      new XosanError('INVALID_ARGUMENT', { what: 'the authorities to trust', reason })
    // Looked at and replaced in one turn: a list that came in between might be of none of them.
    await this.#inTurn(async () => {
      const credentials = await this.credentials()
      if (credentials !== null && signerOf(credentials.certificatePem, authoritiesPem) === null) {
        throw invalid("none of them has signed this host's certificate")
      }
      const revoked = await this.#read(REVOKED_FILE)
      if (revoked !== null) {
        await readRevocationList(revoked, authoritiesPem).catch((error: unknown) => {
          throw invalid(`the list of revoked certificates: ${reasonOf(error)}`)
        })
      }
      await this.#replace(AUTHORITIES_FILE, authoritiesPem)
    })
  }

  /**
   * The authority at work.
   * @returns null on every host but the one that holds it, and there until this host trusts it, and when another one
   *   has succeeded it
   * @throws XosanError TRUST_FILE_UNSAFE
   */
  async authority(): Promise<CertificateAuthority | null> {
    const authority = await this.ownAuthority()
    if (authority === null) return null
    const authoritiesPem = (await this.#read(AUTHORITIES_FILE)) ?? ''
    return certificatesIn(authoritiesPem).at(-1) === authority.certificatePem ? authority : null
  }

  /** The authority whose key is on this host, trusted or not; null on most. @throws XosanError TRUST_FILE_UNSAFE */
  async ownAuthority(): Promise<CertificateAuthority | null> {
    const text = await this.#read(AUTHORITY_FILE)
    const credentials = await this.credentials()
    if (text === null || credentials === null) return null
    const { sr, generation } = credentials.identity
    return new CertificateAuthority({ scope: { sr, generation }, ...this.#pair(AUTHORITY_FILE, text) }, this)
  }

  async saveAuthority({ keyPem, certificatePem }: Authority): Promise<void> {
    await this.#inTurn(async () => this.#replace(AUTHORITY_FILE, keyPem + certificatePem))
  }

  /** @throws XosanError TRUST_FILE_UNSAFE; what `change` throws, and then nothing is changed */
  async changeIssued(
    change: (issued: readonly IssuedCertificate[]) => readonly IssuedCertificate[]
  ): Promise<readonly IssuedCertificate[]> {
    return this.#inTurn(async () => {
      const before = await this.#issued()
      const after = change(before)
      if (after !== before) await this.#replace(ISSUED_FILE, issuedText(after))
      return after
    })
  }

  /**
   * Changes when `credentials` or `revoked` would say something else: each replacement of a file is a new file. For who
   * looks often, and reads seldom.
   */
  async stamp(): Promise<string> {
    const stamps = await Promise.all(
      [HOST_FILE, AUTHORITIES_FILE, REVOKED_FILE].map(async name => {
        try {
          const { ino, mtimeMs, size } = await stat(this.#path(name))
          return `${ino} ${mtimeMs} ${size}`
        } catch {
          return 'missing'
        }
      })
    )
    return stamps.join(', ')
  }

  /** Whether there is a list, good or bad. */
  async hasRevocationList(): Promise<boolean> {
    return (await this.#read(REVOKED_FILE)) !== null
  }

  /** Whether there is one that an authority that is trusted has signed. */
  async hasUsableRevocationList(): Promise<boolean> {
    const [pem, authoritiesPem] = [await this.#read(REVOKED_FILE), await this.#read(AUTHORITIES_FILE)]
    if (pem === null || authoritiesPem === null) return false
    return readRevocationList(pem, authoritiesPem).then(
      () => true,
      () => false
    )
  }

  /**
   * Keeps a revocation list for the programs of this host; etcd's gate needs one to let anybody in.
   * @returns whether there is something on it that was not on the one before
   * @throws XosanError INVALID_ARGUMENT for one that the authority at work (the last one trusted) has not signed, and for
   *   one that lacks what its last one had: somebody has put an old one in place; nothing is changed then
   */
  async saveRevocationList(pem: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const authoritiesPem = (await this.#read(AUTHORITIES_FILE)) ?? ''
      const last = certificatesIn(authoritiesPem).at(-1) ?? ''
      const serials = await readRevocationList(pem, last)
      const file = await this.#read(REVOKED_FILE)
      const serialsOf = async (by: string): Promise<readonly string[]> =>
        file === null ? [] : readRevocationList(file, by).catch(() => [])
      // One of an authority of before may name more: whoever has that key can still make them.
      if ((await serialsOf(last)).some(serial => !serials.includes(serial))) {
        throw new XosanError('INVALID_ARGUMENT', {
          what: 'the list of revoked certificates',
          reason: 'it lacks some that were revoked before',
        })
      }
      const before = await serialsOf(authoritiesPem)
      await this.#replace(REVOKED_FILE, pem)
      return serials.some(serial => !before.includes(serial))
    })
  }

  /** Serial numbers of the certificates that are revoked, as far as this host knows. @throws XosanError TRUST_FILE_UNSAFE */
  async revoked(): Promise<readonly string[]> {
    const [pem, authoritiesPem] = [await this.#read(REVOKED_FILE), await this.#read(AUTHORITIES_FILE)]
    if (pem === null || authoritiesPem === null) return []
    try {
      return await readRevocationList(pem, authoritiesPem)
    } catch (error) {
      throw unsafe(this.#path(REVOKED_FILE), reasonOf(error))
    }
  }

  /** The members as this host knew them last; nobody when it never knew any. @throws XosanError TRUST_FILE_UNSAFE */
  async members(): Promise<readonly Member[]> {
    const text = await this.#read(MEMBERS_FILE)
    if (text === null) return []
    try {
      return membersSchema.parse(JSON.parse(text)).members
    } catch (error) {
      throw unsafe(this.#path(MEMBERS_FILE), `it cannot be understood: ${reasonOf(error)}`)
    }
  }

  async saveMembers(members: readonly Member[]): Promise<void> {
    const text = `${JSON.stringify({ version: 1, members })}\n`
    await this.#inTurn(async () => this.#replace(MEMBERS_FILE, text))
  }

  async #issued(): Promise<readonly IssuedCertificate[]> {
    const text = await this.#read(ISSUED_FILE)
    if (text === null) return []
    try {
      return issuedSchema.parse(JSON.parse(text)).issued
    } catch (error) {
      throw unsafe(this.#path(ISSUED_FILE), `it cannot be understood: ${reasonOf(error)}`)
    }
  }

  #pair(name: string, text: string): { readonly keyPem: string; readonly certificatePem: string } {
    const keyPem = KEY.exec(text)?.[0]
    const certificatePem = CERTIFICATE.exec(text)?.[0]
    if (keyPem === undefined || certificatePem === undefined) {
      throw unsafe(this.#path(name), 'it does not hold one key and its certificate')
    }
    return { keyPem, certificatePem }
  }

  #path(name: string): string {
    return join(this.path, name)
  }

  async #read(name: string): Promise<string | null> {
    const path = this.#path(name)
    let handle: FileHandle
    try {
      handle = await openSafely(path, 0)
    } catch (error) {
      if (hasCode(error, 'TRUST_FILE_UNSAFE')) throw error
      return null
    }
    try {
      await check(path, handle)
      return await handle.readFile('utf8')
    } finally {
      await handle.close()
    }
  }

  /** One change after the other: two at once would write into one unfinished file. */
  async #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const earlier = TrustDirectory.#changes.get(this.path) ?? Promise.resolve()
    const mine = earlier.then(change)
    TrustDirectory.#changes.set(
      this.path,
      mine.catch(() => undefined)
    )
    return mine
  }

  async #replace(name: string, text: string): Promise<void> {
    const path = this.#path(name)
    const unfinished = `${path}.new`
    // One that a crash left may be anybody's idea of a file; ours is a new one.
    await rm(unfinished, { force: true })
    const handle = await open(unfinished, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(unfinished, path)
    const directory = await open(this.path, 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  }
}

/** @returns a descriptor of the thing itself @throws XosanError TRUST_FILE_UNSAFE for a link; ENOENT as it is */
async function openSafely(path: string, flags: number): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | flags)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw error
    throw unsafe(path, reasonOf(error))
  }
}

/** Checks what was opened, not what is now at its path. */
async function check(path: string, handle: FileHandle): Promise<void> {
  const { uid, mode, size } = await handle.stat()
  if (uid !== process.geteuid?.()) throw unsafe(path, `it belongs to user ${uid}`)
  if ((mode & 0o077) !== 0) throw unsafe(path, `others may use it: its mode is ${(mode & 0o777).toString(8)}`)
  if (size > FILE_BYTES_MAX) throw unsafe(path, `it has ${size} bytes`)
}

const unsafe = (path: string, reason: string): XosanError =>
  new XosanError('TRUST_FILE_UNSAFE', { path, reason })
