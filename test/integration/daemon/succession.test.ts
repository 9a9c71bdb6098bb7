import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbeddedCoordinator } from '../../../cluster/embedded/embedded-coordinator.ts'
import { hostKey, memberKey, srKey } from '../../../cluster/keys.ts'
import { serialiseSrRecord } from '../../../cluster/records.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { type HostId, millis, type SrId } from '../../../core/units.ts'
import { EnrolmentDesk } from '../../../daemon/cluster/enrolment-desk.ts'
import { createLog } from '../../../daemon/log.ts'
import { SuccessionRecord } from '../../../daemon/cluster/succession-record.ts'
import { SuccessionSteps } from '../../../daemon/cluster/succession-steps.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { CertificateAuthority } from '../../../trust/certificate-authority.ts'
import { certificatesIn, fingerprintOf } from '../../../trust/certificate.ts'
import { signerOf } from '../../../trust/issued-certificate.ts'
import { type HostCredentials, TrustDirectory } from '../../../trust/trust-directory.ts'
import { Deadline } from '../../../volume/deadline.ts'
import { IssuedInMemory, newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const deadline = () => new Deadline(clock, 'the test', 20_000)
const [h1, h2, h3] = [newHostId(), newHostId(), newHostId()]

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
    done = []
    const note = (what: string) => async () => Promise.resolve(void done.push(what))
    steps = new SuccessionSteps({
      cluster: { file: { sr }, toldMembers: note('told members') },
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

  it('does what it is told when it cannot ask: it may know nobody any more', async () => {
    successor = null
    await trust(false)
    assert.equal(done[0], 'told members')
    assert.equal((await trusted()).length, 2)
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

describe('the record of a succession', () => {
  let directory: string
  let coordinator: Coordinator
  let sr: SrId
  let up: Set<HostId>
  let record: SuccessionRecord

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-succession-'))
    const path = join(directory, 'coordinator.db')
    const callTimeMs = millis(5000)
    coordinator = await openEmbeddedCoordinator({ path, clock, random: nodeRandom, callTimeMs })
    sr = randomUUID() as SrId
    up = new Set([h2, h3])
    const isUp = async (host: HostId) => Promise.resolve(up.has(host))
    record = new SuccessionRecord({ coordinator, clock, random: nodeRandom }, isUp)
    const key = srKey(sr)
    const value = serialiseSrRecord(key, {
      version: 1,
      sr,
      name: 'sr',
      description: '',
      generation: 1,
      configuration: { copies: 2, headroom: { unit: 'fraction', amount: 0.1 } },
      hosts: [h1, h2, h3],
      createdBy: h1,
    })
    await coordinator.transact([], [{ key, value }])
  })
  afterEach(async () => {
    await coordinator.close()
    await rm(directory, { recursive: true })
  })

  const waits = { code: 'SUCCESSION_WAITS' }
  async function goesNoFurther(host: HostId): Promise<void> {
    await assert.rejects(record.requireClaim(sr, host, deadline()), waits)
    await assert.rejects(record.hold(sr, host, deadline()), waits)
    await assert.rejects(record.release(sr, host, [], deadline()), waits)
  }

  it('names one host that succeeds, and the holder, and forgets the succession at the end', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await record.requireClaim(sr, h2, deadline())
    await record.hold(sr, h2, deadline())
    const { authority, succession } = await record.read(sr, deadline())
    assert.deepEqual([authority, succession], [h2, { removed: h1, by: h2 }])
    const removals = [memberKey(h1), hostKey(h1)]
    await coordinator.transact(
      [],
      removals.map(key => ({ key, value: 'written again' }))
    )
    await record.release(sr, h2, removals, deadline())
    const released = await record.read(sr, deadline())
    assert.deepEqual([released.authority, released.succession], [h2, undefined])
    for (const key of removals) assert.equal((await coordinator.read(key)).entry, null)
  })

  it('lets no second host succeed while the first is up', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await assert.rejects(record.claim(sr, h1, h3, new Set([h1]), deadline()), waits)
    await goesNoFurther(h3)
  })

  it('lets another host take it up when the first is lost, which then goes no further', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    up.delete(h2)
    await record.claim(sr, h2, h3, new Set([h2]), deadline())
    await record.requireClaim(sr, h3, deadline())
    await goesNoFurther(h2)
  })

  it('lets another host take it up from one that is removed itself, up or not', async () => {
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await record.claim(sr, h1, h3, new Set([h1, h2]), deadline())
    await goesNoFurther(h2)
  })

  it('has a host removed in the ordinary way only while nobody succeeds and the holder is the same', async () => {
    const key = memberKey(h3)
    const isThere = async () => (await coordinator.read(key)).entry !== null
    await coordinator.transact([], [{ key, value: 'a member' }])
    await assert.rejects(record.remove(sr, h2, [key], deadline()), waits)
    await record.claim(sr, h1, h2, new Set([h1]), deadline())
    await assert.rejects(record.remove(sr, h1, [key], deadline()), waits)
    assert.equal(await isThere(), true)
    await record.release(sr, h2, [], deadline())
    await record.remove(sr, h2, [key], deadline())
    assert.equal(await isThere(), false)
  })

  it('lets one of two begin that want to at the same time', async () => {
    const both = await Promise.allSettled(
      [h2, h3].map(async by => record.claim(sr, h1, by, new Set([h1]), deadline()))
    )
    assert.deepEqual(both.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
  })
})
