/** Certificates that were issued and revoked. */
import assert from 'node:assert/strict'
import { readFile, rm, mkdtemp, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHostKey } from '../../../trust/authority.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { type CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { readRevocationList } from '../../../trust/revocation.ts'
import { type HostCredentials, TrustDirectory } from '../../../trust/trust-directory.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

const DAY_MS = 86_400_000

describe('the authority of an SR', () => {
  let path: string
  let rig: TrustRig
  let directory: TrustDirectory
  let authority: CertificateAuthority
  let holder: HostCredentials

  beforeEach(async () => {
    path = await mkdtemp(join(tmpdir(), 'xosan-authority-'))
    rig = await TrustRig.create()
    directory = await TrustDirectory.open(path)
    holder = await rig.credentials()
    await directory.saveCredentials(holder)
    await directory.saveAuthority(rig.authority)
    authority = (await directory.authority())!
  })
  afterEach(async () => rm(path, { recursive: true }))

  const now = new Date()

  async function issue(host = newHostId(), by = authority): Promise<HostCredentials> {
    const { keyPem, csrPem } = await createHostKey()
    const certificatePem = await by.issue({ csrPem, host, addresses: ['127.0.0.1'], now })
    return { identity: rig.identity(host), keyPem, certificatePem, authoritiesPem: authority.certificatePem }
  }
  const serialOf = ({ certificatePem }: HostCredentials): string => certificateFacts(certificatePem)!.serial
  const listed = async (pem: string) => readRevocationList(pem, authority.certificatePem)

  it('revokes every certificate that a host was ever given, and no other', async () => {
    const leaving = newHostId()
    const certificates = [await issue(leaving), await issue(leaving)]
    const staying = await issue()
    assert.deepEqual(await listed(await authority.revocationList(now)), [])
    const revoked = await listed(await authority.revoke(leaving, now))
    assert.deepEqual([...revoked].sort(), certificates.map(serialOf).sort())
    const again = await issue(leaving)
    const later = await listed(await authority.revocationList(new Date(now.getTime() + 3650 * DAY_MS)))
    assert.deepEqual([...later].sort(), certificates.map(serialOf).sort(), 'also when all of them have ended')
    assert.ok(!later.includes(serialOf(again)) && !later.includes(serialOf(staying)))
  })

  it('knows after a restart what it has issued, also to many hosts at the same time', async () => {
    const hosts = Array.from({ length: 10 }, newHostId)
    // Each through an object of its own, as different parts of a program have them.
    const certificates = await Promise.all(
      hosts.map(async host => issue(host, (await (await TrustDirectory.open(path)).authority())!))
    )
    const later = (await (await TrustDirectory.open(path)).authority())!
    for (const host of hosts) await later.revoke(host, now)
    const serials = await listed(await later.revocationList(now))
    assert.deepEqual([...serials].sort(), certificates.map(serialOf).sort())
    assert.equal((await stat(join(path, 'issued.json'))).mode & 0o777, 0o600)
  })

  it('issues nothing that it could not note, and goes on when it can', async () => {
    await issue()
    const text = await readFile(join(path, 'issued.json'), 'utf8')
    await writeFile(join(path, 'issued.json'), '{', { mode: 0o600 })
    await assert.rejects(issue(), { code: 'TRUST_FILE_UNSAFE' })
    await writeFile(join(path, 'issued.json'), text, { mode: 0o600 })
    const certificate = await issue()
    assert.ok((await readFile(join(path, 'issued.json'), 'utf8')).includes(serialOf(certificate)))
  })

  it('gives a host no more than 64 certificates that are in their time', async () => {
    const host = newHostId()
    const all = Array.from({ length: 64 }, (_, i) => ({
      serial: `4${i.toString().padStart(3, '0')}`,
      host,
      notAfter: new Date(now.getTime() + DAY_MS),
      revoked: false,
    }))
    await directory.changeIssued(() => all)
    await assert.rejects(issue(host), { code: 'CERTIFICATE_REFUSED' })
    await issue()
    await authority.revoke(host, now)
    await issue(host)
  })

  it('keeps a revocation list that it has signed itself, and no other', async () => {
    const stranger = await TrustRig.create()
    const list = await authority.revoke(newHostId(), now)
    await directory.saveRevocationList(list)
    assert.equal(await readFile(join(path, 'revoked.pem'), 'utf8'), list)
    for (const bad of ['', 'garbage', stranger.authority.certificatePem, list.replace(/^M/m, 'N')]) {
      await assert.rejects(directory.saveRevocationList(bad), { code: 'INVALID_ARGUMENT' })
    }
    const foreign = await mkdtemp(join(tmpdir(), 'xosan-foreign-'))
    const theirs = await TrustDirectory.open(foreign)
    await theirs.saveCredentials(await stranger.credentials())
    await assert.rejects(theirs.saveRevocationList(list), { code: 'INVALID_ARGUMENT' })
    await rm(foreign, { recursive: true })
    assert.equal(await readFile(join(path, 'revoked.pem'), 'utf8'), list)
  })
})
