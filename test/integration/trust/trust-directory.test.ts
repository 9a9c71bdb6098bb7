import assert from 'node:assert/strict'
import { chmod, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHostKey } from '../../../trust/authority.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { certificateFacts } from '../../../trust/certificate.ts'
import { readRevocationList } from '../../../trust/revocation.ts'
import { createSuccessor } from '../../../trust/successor.ts'
import { type HostCredentials, TrustDirectory } from '../../../trust/trust-directory.ts'
import { IssuedInMemory, newHostId, TrustRig } from '../../support/trust-rig.ts'

async function certified(authority: CertificateAuthority, { identity }: HostCredentials) {
  const { keyPem, csrPem } = await createHostKey()
  const request = { csrPem, host: identity.host, addresses: [], now: new Date() }
  return { keyPem, certificatePem: await authority.issue(request) }
}

describe('the directory of keys', () => {
  let parent: string
  let path: string
  let rig: TrustRig

  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'xosan-keys-'))
    path = join(parent, 'trust')
    rig = await TrustRig.create()
  })

  afterEach(async () => rm(parent, { recursive: true }))

  const unsafe = { code: 'TRUST_FILE_UNSAFE' }

  it('gives back what was kept, in files that only their owner can read', async () => {
    const directory = await TrustDirectory.open(path)
    assert.equal(await directory.credentials(), null)
    assert.equal(await directory.authority(), null)
    assert.deepEqual(await directory.members(), [])
    const credentials = await rig.credentials()
    const members = [rig.enlist(credentials)]
    await directory.saveCredentials(credentials)
    await directory.saveAuthority(rig.authority)
    await directory.saveMembers(members)
    const again = await TrustDirectory.open(path)
    assert.deepEqual(await again.credentials(), credentials)
    const authority = await again.authority()
    assert.equal(authority?.certificatePem, rig.authority.certificatePem)
    assert.deepEqual(authority.scope, rig.authority.scope)
    assert.deepEqual(await again.members(), members)
    assert.equal((await stat(path)).mode & 0o777, 0o700)
    for (const name of await readdir(path))
      assert.equal((await stat(join(path, name))).mode & 0o777, 0o600, name)
  })

  it('replaces a certificate with its key, also after a replacement that was broken off', async () => {
    const directory = await TrustDirectory.open(path)
    const first = await rig.credentials()
    await directory.saveCredentials(first)
    await writeFile(join(path, 'host.pem.new'), 'half of a k', { mode: 0o644 })
    assert.deepEqual(await directory.credentials(), first)
    const second = await rig.credentials(first.identity)
    await directory.saveCredentials(second)
    assert.deepEqual(await directory.credentials(), second)
    assert.equal((await stat(join(path, 'host.pem'))).mode & 0o777, 0o600)
  })

  it('keeps two authorities while one succeeds the other, and certificates of either', async () => {
    const directory = await TrustDirectory.open(path)
    const first = await rig.credentials()
    await directory.saveCredentials(first)
    const successor = await TrustRig.create(rig.authority.scope)
    const both = first.authoritiesPem + successor.authority.certificatePem
    await directory.saveAuthorities(both)
    assert.deepEqual(await directory.credentials(), { ...first, authoritiesPem: both })
    const second = await successor.credentials(first.identity)
    await directory.saveCertificate(second)
    assert.deepEqual(await directory.credentials(), { ...second, authoritiesPem: both })
    // Its list for etcd is the last one's from here on, whatever the one before had revoked, or revokes yet.
    const before = new CertificateAuthority(rig.authority, new IssuedInMemory())
    await assert.rejects(directory.saveRevocationList(await before.revocationList(new Date())), {
      code: 'INVALID_ARGUMENT',
    })
    await directory.saveAuthority(successor.authority)
    const authority = (await directory.authority())!
    await directory.saveRevocationList(await authority.revoke(newHostId(), new Date()))
    await directory.saveAuthorities(successor.authority.certificatePem)
    assert.equal((await directory.credentials())?.authoritiesPem, successor.authority.certificatePem)
  })

  it('does not trust authorities by which nobody would let this host in', async () => {
    const directory = await TrustDirectory.open(path)
    const first = await rig.credentials()
    await directory.saveCredentials(first)
    await directory.saveAuthority(rig.authority)
    await directory.saveRevocationList(await (await directory.authority())!.revocationList(new Date()))
    const successor = await TrustRig.create(rig.authority.scope)
    const alone = successor.authority.certificatePem
    await assert.rejects(directory.saveAuthorities(alone), /signed this host's certificate/)
    await directory.saveAuthorities(first.authoritiesPem + alone)
    await directory.saveCertificate(await successor.credentials(first.identity))
    await assert.rejects(directory.saveAuthorities(alone), /the list of revoked certificates/)
  })

  it('lets no list of the authority before stand in the way of the last one, when both come at once either', async () => {
    const directory = await TrustDirectory.open(path)
    const first = await rig.credentials()
    await directory.saveCredentials(first)
    const before = new CertificateAuthority(rig.authority, new IssuedInMemory())
    const [host, now] = [newHostId(), new Date()]
    await before.issue({ csrPem: (await createHostKey()).csrPem, host, addresses: [], now })
    await directory.saveRevocationList(await before.revoke(host, now))
    const successor = await TrustRig.create(rig.authority.scope)
    await directory.saveAuthorities(first.authoritiesPem + successor.authority.certificatePem)
    await directory.saveCertificate(await successor.credentials(first.identity))
    const after = new CertificateAuthority(successor.authority, new IssuedInMemory())
    await directory.saveRevocationList(await after.revocationList(now))
    assert.deepEqual(await directory.revoked(), [])
    await Promise.allSettled([
      before.revoke(host, now).then(async list => directory.saveRevocationList(list)),
      directory.saveAuthorities(successor.authority.certificatePem),
    ])
    assert.deepEqual(await directory.revoked(), [], 'what is on disk fits together')
    assert.equal((await directory.credentials())!.authoritiesPem, successor.authority.certificatePem)
  })

  it('makes a successor once, which is at work when it is trusted, and forgets nothing that was revoked', async () => {
    const directory = await TrustDirectory.open(path)
    await directory.saveCredentials(await rig.credentials())
    const before = new CertificateAuthority(rig.authority, new IssuedInMemory())
    const { csrPem } = await createHostKey()
    const now = new Date()
    await before.issue({ csrPem, host: newHostId(), addresses: [], now })
    const removed = newHostId()
    const stolen = await before.issue({ csrPem, host: removed, addresses: [], now })
    await directory.saveRevocationList(await before.revoke(removed, now))

    const unused = await createSuccessor(directory, now)
    assert.equal(await directory.authority(), null, 'nobody trusts it yet')
    const authority = await createSuccessor(directory, now)
    assert.notEqual(authority.certificatePem, unused.certificatePem, 'one that nobody trusts is given up')
    await directory.saveAuthorities(rig.authority.certificatePem + authority.certificatePem)
    const atWork = (await directory.authority())!
    assert.deepEqual([...(await atWork.holders())], [])
    const list = await atWork.revocationList(now)
    assert.deepEqual(await readRevocationList(list, authority.certificatePem), [
      certificateFacts(stolen)!.serial,
    ])
    await directory.saveRevocationList(list)
    // Broken off, and done again when only the new one is trusted.
    await directory.saveCertificate(await certified(atWork, (await directory.credentials())!))
    await directory.saveAuthorities(authority.certificatePem)
    assert.equal((await createSuccessor(directory, now)).certificatePem, authority.certificatePem)
  })

  it('keeps the last of several lists of members that came at the same time', async () => {
    const lists = await Promise.all([1, 2, 3, 4].map(async () => [rig.enlist(await rig.credentials())]))
    await Promise.all(lists.map(async list => (await TrustDirectory.open(path)).saveMembers(list)))
    const kept = await (await TrustDirectory.open(path)).members()
    assert.ok(lists.some(list => list[0]!.host === kept[0]?.host))
    assert.deepEqual(await readdir(path), ['members.json'])
  })

  it('refuses a key that others could read, and a directory that they could change', async () => {
    const directory = await TrustDirectory.open(path)
    await directory.saveCredentials(await rig.credentials())
    await chmod(join(path, 'host.pem'), 0o640)
    await assert.rejects(directory.credentials(), unsafe)
    await chmod(path, 0o770)
    await assert.rejects(TrustDirectory.open(path), unsafe)
  })

  it('refuses a link, and what is no directory', async () => {
    const directory = await TrustDirectory.open(path)
    await directory.saveCredentials(await rig.credentials())
    await rename(join(path, 'host.pem'), join(parent, 'elsewhere.pem'))
    await symlink(join(parent, 'elsewhere.pem'), join(path, 'host.pem'))
    await assert.rejects(directory.credentials(), unsafe)
    await symlink(path, join(parent, 'link'))
    await assert.rejects(TrustDirectory.open(join(parent, 'link')), unsafe)
  })

  it('refuses files that do not say what they should, without quoting them', async () => {
    const directory = await TrustDirectory.open(path)
    await directory.saveCredentials(await rig.credentials())
    await writeFile(join(path, 'members.json'), '{"version":1,"members":[{"host":"x"}]}', { mode: 0o600 })
    await assert.rejects(directory.members(), unsafe)
    await writeFile(join(path, 'host.pem'), 'SECRET', { mode: 0o600 })
    await assert.rejects(directory.credentials(), (error: Error) => !error.message.includes('SECRET'))
  })
})
