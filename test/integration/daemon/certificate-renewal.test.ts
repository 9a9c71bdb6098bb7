import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { memberKey } from '../../../cluster/keys.ts'
import { serialiseMemberRecord } from '../../../cluster/records.ts'
import { CertificateRenewal } from '../../../daemon/cluster/certificate-renewal.ts'
import { trustPath } from '../../../daemon/cluster/cluster-file.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { createHostKey } from '../../../trust/authority.ts'
import { fingerprintOf } from '../../../trust/certificate.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

describe('renewing on the host that holds the authority', () => {
  let stateDirectory: string
  beforeEach(async () => (stateDirectory = await mkdtemp(join(tmpdir(), 'xosan-renewing-'))))
  afterEach(async () => rm(stateDirectory, { recursive: true }))

  it('certifies members, but nobody while an authority before is trusted, whose key may be anywhere', async () => {
    const [old, rig] = await (async () => {
      const first = await TrustRig.create()
      return [first, await TrustRig.create(first.authority.scope)] as const
    })()
    const directory = await TrustDirectory.open(trustPath(stateDirectory))
    const own = await rig.credentials()
    await directory.saveCredentials(own)
    await directory.saveAuthority(rig.authority)
    const [host, inUse] = [newHostId(), fingerprintOf(own.certificatePem)]
    const key = memberKey(host)
    const record = { version: 1 as const, host, admission: 'a', certificates: [inUse] }
    const entry = { key, value: serialiseMemberRecord(key, record), revision: 1 }
    const renewal = new CertificateRenewal({
      config: { stateDirectory, host: { name: 'h1' } } as never,
      cluster: { credentials: null } as never,
      coordinator: {
        read: async (asked: string) => Promise.resolve({ entry: asked === key ? entry : null, revision: 1 }),
        transact: async () => Promise.resolve({ committed: true, revision: 2, current: [] }),
      } as never,
      clock: createNodeClock(),
      random: nodeRandom,
      log: {} as never,
      holder: () => null,
      reload: async () => Promise.resolve(),
    })
    const renew = async () => {
      const { csrPem } = await createHostKey()
      return renewal.renew({ csrPem, inUse }, { host })
    }
    assert.match((await renew()).certificatePem, /BEGIN CERTIFICATE/)
    await directory.saveAuthorities(old.authority.certificatePem + own.authoritiesPem)
    await assert.rejects(renew(), { code: 'CERTIFICATE_REFUSED' })
    await directory.saveAuthorities(own.authoritiesPem)
    await renew()
  })
})
