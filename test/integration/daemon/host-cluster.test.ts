import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEmbeddedCoordinator } from '../../../cluster/embedded/embedded-coordinator.ts'
import { memberKey } from '../../../cluster/keys.ts'
import { serialiseMemberRecord } from '../../../cluster/records.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { trustPath, writeClusterFile } from '../../../daemon/cluster/cluster-file.ts'
import { HostCluster } from '../../../daemon/cluster/host-cluster.ts'
import { type Config } from '../../../daemon/config.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { type Member } from '../../../trust/members.ts'
import { TrustDirectory } from '../../../trust/trust-directory.ts'
import { newHostId, TrustRig } from '../../support/trust-rig.ts'

const clock = createNodeClock()
const OLD = 'a'.repeat(64)
const NEW = 'b'.repeat(64)

describe('the programs of a host that follow the list of members', () => {
  let directory: string
  let coordinator: Coordinator
  let members: readonly Member[]
  /** xosand, and a datapath process. */
  let programs: readonly HostCluster[]

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-host-cluster-'))
    const path = join(directory, 'coordinator.db')
    coordinator = await openEmbeddedCoordinator({ path, clock, random: nodeRandom, callTimeMs: millis(5000) })
    const own = await (await TrustRig.create()).credentials()
    const { sr, host: uuid } = own.identity
    members = [uuid, newHostId()].map(host => ({ host, admission: 'first', certificates: [OLD] }))
    await coordinator.transact([], members.map(recordOf))
    const trust = await TrustDirectory.open(trustPath(directory))
    await trust.saveCredentials(own)
    await trust.saveMembers(members)
    const embedded = { kind: 'embedded', path } as const
    await writeClusterFile(directory, {
      version: 1,
      phase: 'joined',
      sr,
      generation: 1,
      coordinator: embedded,
    })
    const config = {
      host: { uuid, name: 'h1', address: '127.0.0.1' },
      stateDirectory: directory,
      peers: 'tls',
      coordinator: embedded,
      timing: { coordinatorCallMs: 5000 },
    } as unknown as Config
    programs = await Promise.all(
      [true, false].map(async keepsMembers =>
        HostCluster.open({ config, clock, random: nodeRandom, log: () => undefined, keepsMembers })
      )
    )
  })
  afterEach(async () => {
    for (const program of programs) await program.close()
    await coordinator.close()
    await rm(directory, { recursive: true })
  })

  const recordOf = (member: Member) => {
    const key = memberKey(member.host)
    return { key, value: serialiseMemberRecord(key, { version: 1, ...member }) }
  }

  /** Resolves when the list of a program is as it should be, by what the coordinator says. */
  async function until(program: HostCluster, holds: (list: readonly Member[]) => boolean): Promise<void> {
    if (holds(program.members.all)) return
    await new Promise<void>(resolve => {
      const end = program.members.onChange(() => {
        if (!holds(program.members.all)) return
        end()
        resolve()
      })
    })
  }

  it('know a certificate of a member that they were told of while the coordinator does not tell it', async () => {
    const [xosand, datapath] = programs as [HostCluster, HostCluster]
    const [self, other] = members as [Member, Member]
    // A change, so that both follow for certain.
    const left = newHostId()
    await coordinator.transact([], [recordOf({ host: left, admission: 'first', certificates: [OLD] })])
    for (const program of programs) await until(program, list => list.length === 3)

    await xosand.toldMembers([self, { ...other, certificates: [OLD, NEW] }])
    await datapath.reload()
    for (const program of programs) {
      assert.deepEqual(program.members.get(other.host)?.certificates, [OLD, NEW])
      assert.notEqual(program.members.get(left), undefined, 'who is a member is for the coordinator to say')
    }

    await coordinator.transact([], [{ key: memberKey(left), value: null }])
    for (const program of programs) await until(program, list => list.length === 2)
    for (const program of programs) assert.deepEqual(program.members.get(other.host)?.certificates, [OLD])
  })
})
