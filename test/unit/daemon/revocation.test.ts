import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { memberKey } from '../../../cluster/keys.ts'
import { type Change, type Coordinator } from '../../../core/ports/coordinator.ts'
import { type HostId, type SrId } from '../../../core/units.ts'
import { Revocation } from '../../../daemon/cluster/revocation.ts'
import { createLog } from '../../../daemon/log.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { createAuthority, createHostKey } from '../../../trust/authority.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { MemberList } from '../../../trust/members.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'

const [own, other] = [randomUUID() as HostId, randomUUID() as HostId]

describe('the revocation of certificates', () => {
  let path: string
  let directory: TrustDirectory
  let entries: Map<string, string>
  let revocation: Revocation
  let joining: Set<HostId>
  /** What happens while the coordinator answers. */
  let meanwhile: () => void

  const read = async (key: string) => {
    const value = entries.get(key)
    return Promise.resolve({ entry: value === undefined ? null : { key, value, revision: 1 }, revision: 1 })
  }
  const coordinator = {
    read,
    list: async (prefix: string) => {
      const found = [...entries].filter(([key]) => key.startsWith(prefix))
      meanwhile()
      return Promise.resolve({
        entries: found.map(([key, value]) => ({ key, value, revision: 1 })),
        revision: 1,
      })
    },
    transact: async (_: unknown, changes: readonly Change[]) => {
      for (const { key, value } of changes) if (value !== null) entries.set(key, value)
      return Promise.resolve({ committed: true, revision: 2, current: [] })
    },
  } as unknown as Coordinator

  const file = (): string => join(path, 'trust', 'revoked.pem')

  beforeEach(async () => {
    coordinator.read = read
    joining = new Set()
    meanwhile = () => undefined
    path = await mkdtemp(join(tmpdir(), 'xosan-revocation-'))
    directory = await TrustDirectory.open(join(path, 'trust'))
    const scope = { sr: randomUUID() as SrId, generation: 1 }
    const authority = await createAuthority(scope, new Date())
    const issuing = new CertificateAuthority(authority, directory)
    const issue = async (host: HostId) => {
      const { keyPem, csrPem } = await createHostKey()
      const request = { csrPem, host, addresses: ['127.0.0.1'], now: new Date() }
      return { keyPem, certificatePem: await issuing.issue(request) }
    }
    const authoritiesPem = authority.certificatePem
    await directory.saveCredentials({ ...(await issue(own)), authoritiesPem })
    await directory.saveAuthority(authority)
    await issue(other)
    entries = new Map([own, other].map(host => [memberKey(host), 'a record']))
    revocation = new Revocation({
      directory,
      host: own,
      // As after a start: this host does not know yet whom it let in just before it died.
      members: new MemberList([]),
      coordinator,
      isJoining: host => joining.has(host),
      clock: createNodeClock(),
      random: nodeRandom,
      log: createLog('test', 'error'),
      changed: () => undefined,
    })
  })
  afterEach(async () => {
    revocation.close()
    await rm(path, { recursive: true, force: true })
  })

  it('leaves a member alone that this host does not know of yet', async () => {
    await revocation.current()
    assert.deepEqual(await directory.revoked(), [])
  })

  it('takes everything from a host that is no member any more', async () => {
    entries.delete(memberKey(other))
    await revocation.current()
    assert.equal((await directory.revoked()).length, 1)
  })

  it('leaves a host alone that is let in while the coordinator answers', async () => {
    entries.delete(memberKey(other))
    joining.add(other)
    meanwhile = () => joining.delete(other)
    await revocation.current()
    assert.deepEqual(await directory.revoked(), [])
  })

  it('revokes nothing while another authority is trusted, whose key may be anybody’s', async () => {
    const credentials = (await directory.credentials())!
    const { sr, generation } = credentials.identity
    const before = await createAuthority({ sr, generation }, new Date())
    await directory.saveAuthorities(before.certificatePem + credentials.authoritiesPem)
    await assert.rejects(revocation.revoke(other), { code: 'SUCCESSION_WAITS' })
    entries.delete(memberKey(other))
    await revocation.current()
    assert.deepEqual(await directory.revoked(), [])
    await directory.saveAuthorities(credentials.authoritiesPem)
    await revocation.current()
    assert.equal((await directory.revoked()).length, 1, 'when it is over')
  })

  it('makes the list anew that is lost or damaged, also while the coordinator is away, which waits for it', async () => {
    await revocation.revoke(other)
    const [revoked] = await directory.revoked()
    coordinator.list = async () => Promise.reject(new Error('away'))
    for (const damage of [
      async () => rm(file()),
      async () => writeFile(file(), 'garbage', { mode: 0o600 }),
    ]) {
      await damage()
      await revocation.current()
      assert.deepEqual(await directory.revoked(), [revoked])
    }
  })

  it('says what keeps it from publishing to those who need to know', async () => {
    const away = new Error('away')
    coordinator.read = async () => Promise.reject(away)
    await revocation.current()
    await assert.rejects(revocation.require(), away)
  })

  it('takes nothing from anybody when the coordinator does not know this very host', async () => {
    entries.clear()
    await revocation.current()
    assert.deepEqual(await directory.revoked(), [])
  })
})
