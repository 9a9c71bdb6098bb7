import assert from 'node:assert/strict'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { RpcClient } from '../../../rpc/client.ts'
import { RpcServer } from '../../../rpc/server.ts'
import { createHostKey } from '../../../trust/authority.ts'
import { certificateFacts, fingerprintOf } from '../../../trust/certificate.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { withCertificate, withoutCertificates } from '../../../trust/members.ts'
import { renewalApi } from '../../../trust/renewal-api.ts'
import { renewalHandlers } from '../../../trust/renewal-server.ts'
import { type HostCredentials } from '../../../trust/trust-directory.ts'
import { IssuedInMemory, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const CALL_MS = { deadlineMs: 10_000 }

describe('a member that asks for another certificate', () => {
  let rig: TrustRig
  let issued: IssuedInMemory
  let server: RpcServer
  let holder: HostCredentials
  let port: number
  let noted: Error | null
  const clients: RpcClient[] = []

  beforeEach(async () => {
    rig = await TrustRig.create()
    issued = new IssuedInMemory()
    noted = null
    holder = await rig.credentials()
    rig.enlist(holder)
    const handlers = renewalHandlers({
      authority: new CertificateAuthority(rig.authority, issued),
      addressesOf: async () => Promise.resolve(['127.0.0.1']),
      addFingerprint: async (host, fingerprint, inUse) => {
        if (noted !== null) throw noted
        rig.change(host, member => withCertificate(member, fingerprint, inUse))
        return Promise.resolve()
      },
      removeFingerprints: async (host, fingerprints) => {
        rig.change(host, member => withoutCertificates(member, fingerprints))
        return Promise.resolve()
      },
      timeOfDay: () => new Date(),
    })
    server = new RpcServer({ log: () => undefined })
    server.register('trust.renew', renewalApi['trust.renew'].params, handlers['trust.renew'])
    server.register('trust.retire', renewalApi['trust.retire'].params, handlers['trust.retire'])
    port = await server.listenTls('127.0.0.1', 0, rig.transport(holder))
  })

  afterEach(async () => {
    for (const client of clients.splice(0)) client.close()
    rig.close()
    await server.close()
  })

  const connect = (credentials?: HostCredentials, to = port): RpcClient => {
    const address = { host: '127.0.0.1', port: to }
    const dialer =
      credentials === undefined ? {} : { dialer: rig.transport(credentials).to(holder.identity.host) }
    const client = new RpcClient({ address, clock, ...dialer })
    clients.push(client)
    return client
  }
  const renew = async (client: RpcClient, inUse: string) => {
    const { keyPem, csrPem } = await createHostKey()
    const { result } = renewalApi['trust.renew']
    const { certificatePem } = await client.call('trust.renew', { csrPem, inUse }, result, CALL_MS)
    return { keyPem, certificatePem }
  }

  it('gets one for itself, which is good at once beside the old one, until that is retired', async () => {
    const old = await rig.credentials()
    rig.enlist(old)
    const inUse = fingerprintOf(old.certificatePem)
    const young = { ...old, ...(await renew(connect(old), inUse)) }
    assert.deepEqual(certificateFacts(young.certificatePem)?.identity, old.identity)
    assert.deepEqual(issued.serialsOf(old.identity.host), [certificateFacts(young.certificatePem)!.serial])
    const retire = async (client: RpcClient) =>
      client.call('trust.retire', { certificates: [inUse] }, renewalApi['trust.retire'].result, CALL_MS)
    await renew(connect(old), inUse)
    await retire(connect(young))
    await retire(connect(young))
    await assert.rejects(renew(connect(old), inUse), { code: 'PEER_UNREACHABLE' })
    await rig.refused('not-a-member')
  })

  it('gets none while that cannot be put on the list, and can retire nobody else', async () => {
    const [own, other] = [await rig.credentials(), await rig.credentials()]
    rig.enlist(own)
    rig.enlist(other)
    noted = new Error('no coordinator')
    await assert.rejects(renew(connect(own), fingerprintOf(own.certificatePem)), { code: 'INTERNAL' })
    const certificates = [fingerprintOf(other.certificatePem), fingerprintOf(own.certificatePem)]
    await connect(own).call('trust.retire', { certificates }, renewalApi['trust.retire'].result, CALL_MS)
    for (const each of [own, other]) {
      const { host } = each.identity
      assert.deepEqual(rig.members.get(host)?.certificates, [fingerprintOf(each.certificatePem)])
    }
  })

  it('has to come through TLS', async () => {
    const clear = connect(undefined, await server.listenTcp('127.0.0.1', 0))
    await assert.rejects(renew(clear, fingerprintOf(holder.certificatePem)), { code: 'PEER_NOT_TRUSTED' })
    assert.deepEqual(issued.issued, [])
  })
})
