import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { srKey } from '../../../cluster/keys.ts'
import { serialiseSrRecord, type SrRecord } from '../../../cluster/records.ts'
import { trustPath, writeClusterFile } from '../../../daemon/cluster/cluster-file.ts'
import { ClusterService } from '../../../daemon/cluster/cluster-service.ts'
import { createLog } from '../../../daemon/log.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { MemberList } from '../../../trust/members.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'
import { SimulatedCoordinator } from '../../simulator/simulated-coordinator.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const [h1, h3] = [newHostId(), newHostId()]

describe('an invitation', () => {
  let directory: string
  let record: (change: Partial<SrRecord>) => void
  let service: ClusterService

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-invitation-'))
    const rig = await TrustRig.create()
    const own = await rig.credentials()
    const { sr, host: uuid } = own.identity
    const trust = await TrustDirectory.open(trustPath(directory))
    await trust.saveCredentials(own)
    await trust.saveAuthority(rig.authority)
    const coordinator = { kind: 'embedded', path: '/nowhere' } as const
    await writeClusterFile(directory, { version: 1, phase: 'joined', sr, generation: 1, coordinator })
    const store = new SimulatedCoordinator({ clock })
    record = change => {
      const key = srKey(sr)
      const value = serialiseSrRecord(key, {
        version: 1,
        sr,
        name: 'sr',
        description: '',
        generation: 1,
        configuration: { copies: 2, headroom: { unit: 'fraction', amount: 0.1 } },
        hosts: [h1, uuid],
        createdBy: h1,
        authority: uuid,
        ...change,
      })
      store.transact('the test', [], [{ key, value }])
    }
    service = new ClusterService({
      config: {
        host: { uuid, name: 'h2', address: '127.0.0.1' },
        ports: { enrolment: 0 },
        stateDirectory: directory,
      },
      cluster: { members: new MemberList([]), coordinator: store.client('h2') },
      clock,
      log: createLog('test', 'error'),
    } as unknown as ConstructorParameters<typeof ClusterService>[0])
  })
  afterEach(async () => rm(directory, { recursive: true }))

  const invite = async () => service.invite(h3, '127.0.0.3')

  it('is made by the host that holds the authority, not by one that has its key still', async () => {
    record({ authority: h1 })
    await assert.rejects(invite(), { code: 'AUTHORITY_ELSEWHERE' })
    record({})
    assert.ok((await invite()).ticket.length > 0)
  })

  it('is made for nobody until a succession is over, also when the successor lacks only its last step', async () => {
    const { host } = (await (await TrustDirectory.open(trustPath(directory))).credentials())!.identity
    record({ succession: { removed: [h1], by: host } })
    await assert.rejects(invite(), { code: 'SUCCESSION_WAITS' })
  })
})
