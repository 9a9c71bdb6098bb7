import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type HostId, type SrId } from '../../../core/units.ts'
import { EnrolmentDesk } from '../../../daemon/cluster/enrolment-desk.ts'
import { createLog } from '../../../daemon/log.ts'
import { SuccessionSteps } from '../../../daemon/cluster/succession-steps.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { certificatesIn, fingerprintOf } from '../../../trust/certificate.ts'
import { signerOf } from '../../../trust/issued-certificate.ts'
import { type HostCredentials, TrustDirectory } from '../../../trust/trust-directory.ts'
import { IssuedInMemory, newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const [h2, h3] = [newHostId(), newHostId()]

describe('what a host does at a succession', () => {
  let parent: string
  let directory: TrustDirectory
  let rig: TrustRig
  let next: TrustRig
  let own: HostCredentials
  let sr: SrId
  let steps: SuccessionSteps
  /** Who succeeds, as the coordinator says. */
  let successor: HostId | undefined | null
  /** What is said once this host knows who the members are, if nothing was before. */
  let afterTold: HostId | null
  let done: string[]

  beforeEach(async () => {
    parent = await mkdtemp(join(tmpdir(), 'xosan-succession-'))
    directory = await TrustDirectory.open(join(parent, 'trust'))
    rig = await TrustRig.create()
    next = await TrustRig.create(rig.authority.scope)
    own = await rig.credentials()
    sr = own.identity.sr
    await directory.saveCredentials(own)
    successor = h2
    afterTold = null
    done = []
    const note = (what: string) => async () => Promise.resolve(void done.push(what))
    steps = new SuccessionSteps({
      host: 'h3',
      cluster: {
        file: { sr },
        toldMembers: async () => {
          done.push('told members')
          successor ??= afterTold
          return Promise.resolve()
        },
      },
      directory: async () => Promise.resolve(directory),
      successor: async () => Promise.resolve(successor),
      revocationsCurrent: note('revocations'),
      reload: note('reload'),
      renewal: { trust: () => void done.push('trust'), adopt: () => void done.push('adopt') },
      etcdRestarted: note('etcd'),
    })
  })
  afterEach(async () => rm(parent, { recursive: true }))

  const authorityPem = () => next.authority.certificatePem
  const trust = async (alone: boolean) =>
    steps.trust({ sr, by: h2, authorityPem: authorityPem(), alone, members: [] })
  const trusted = async () => certificatesIn((await directory.credentials())!.authoritiesPem)
  const listed = async () => [fingerprintOf((await directory.credentials())!.certificatePem)]
  const certified = async () => {
    const request = (await steps.request(sr, await listed()))!
    const authority = new CertificateAuthority(next.authority, new IssuedInMemory())
    const certificatePem = await authority.issue({
      csrPem: request.csrPem,
      host: own.identity.host,
      addresses: [],
      now: new Date(),
    })
    await steps.certify({ sr, certificatePem, members: [] })
    return certificatePem
  }

  it('trusts the successor beside the one before, is certified by it, and then trusts it alone', async () => {
    await trust(false)
    assert.deepEqual(done, ['told members', 'revocations', 'reload', 'trust', 'etcd'])
    assert.deepEqual(await trusted(), [rig.authority.certificatePem, authorityPem()])
    await assert.rejects(trust(true), /signed this host's certificate/, 'nobody would let it in')
    const certificatePem = await certified()
    assert.equal((await directory.credentials())!.certificatePem, certificatePem)
    assert.equal(await steps.request(sr, await listed()), null, 'it has what it needs')
    assert.notEqual(await steps.request(sr, []), null, 'it is not on its record any more')
    await trust(true)
    assert.deepEqual(await trusted(), [authorityPem()])
    assert.ok(signerOf(certificatePem, authorityPem()) !== null)
  })

  it('changes nothing when it is told again, or late, and has etcd restarted all the same', async () => {
    await trust(false)
    await trust(false)
    assert.equal((await trusted()).length, 2)
    await certified()
    await trust(true)
    done.length = 0
    await trust(true)
    await trust(false)
    assert.deepEqual(await trusted(), [authorityPem()], 'the old one does not come back')
    assert.equal(done.filter(what => what === 'etcd').length, 2)
  })

  it('believes nobody who does not succeed now', async () => {
    for (const other of [undefined, h3]) {
      successor = other
      await assert.rejects(trust(false), /does not succeed another one now/)
    }
    assert.deepEqual(await trusted(), [rig.authority.certificatePem])
  })

  it('asks again when it has been told who the members are, since it may know nobody any more', async () => {
    successor = null
    afterTold = h2
    await trust(false)
    assert.equal(done[0], 'told members')
    assert.equal((await trusted()).length, 2)
  })

  it('trusts nobody whom it cannot ask about, who may be somebody of before', async () => {
    successor = null
    await assert.rejects(trust(false), { code: 'SUCCESSION_WAITS', message: /Host h3: / })
    assert.deepEqual(await trusted(), [rig.authority.certificatePem])
  })

  it('does not trust alone what it has not heard of, more than one, or what is none', async () => {
    await assert.rejects(trust(true), /has not heard of it/)
    const other = (await TrustRig.create(rig.authority.scope)).authority.certificatePem
    for (const pem of [authorityPem() + other, 'nothing', '']) {
      await assert.rejects(steps.trust({ sr, by: h2, authorityPem: pem, alone: false, members: [] }), {
        code: 'INVALID_ARGUMENT',
      })
    }
    assert.deepEqual(await trusted(), [rig.authority.certificatePem])
  })

  it('takes no certificate that is not of the key it was asked for', async () => {
    await trust(false)
    const { certificatePem } = await next.credentials(own.identity)
    const certify = async () => steps.certify({ sr, certificatePem, members: [] })
    await assert.rejects(certify(), /nobody has asked for its key/)
    await steps.request(sr, await listed())
    await assert.rejects(certify(), /of another key/)
    assert.equal((await directory.credentials())!.certificatePem, own.certificatePem)
  })

  it('lets nobody join until it is over, when this is the host that succeeds', async () => {
    await directory.saveAuthority(next.authority)
    await trust(false)
    const config = {
      host: { uuid: own.identity.host, name: 'h2', address: '127.0.0.1' },
      ports: { enrolment: 0 },
    }
    const log = createLog('test', 'error')
    const admit = async () => Promise.resolve([])
    const desk = new EnrolmentDesk({ config: config as never, clock, log, admit })
    await assert.rejects(desk.ticket(directory, h3, '127.0.0.3'), { code: 'SUCCESSION_WAITS' })
    await certified()
    await trust(true)
    await desk.ticket(directory, h3, '127.0.0.3')
    await desk.close()
  })

  it('does nothing for another SR', async () => {
    const other = randomUUID() as SrId
    await assert.rejects(steps.request(other, []), { code: 'NOT_IN_CLUSTER' })
  })
})
