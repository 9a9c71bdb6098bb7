import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { byteOffset } from '../../../../core/units.ts'
import { type Config, parseConfig } from '../../../../daemon/config.ts'
import { nodeRandom } from '../../../../daemon/ports/node-random.ts'
import { powerOf } from '../../../../datapath/process/lab-power.ts'

const configOf = (more: object): Config =>
  parseConfig({
    host: { uuid: '6f1d5a0e-0000-4000-8000-00000000000a', name: 'h1', address: '127.0.0.1' },
    runDirectory: '/run/xosan',
    stateDirectory: '/var/lib/xosan',
    defaultPath: '/srv',
    coordinator: { kind: 'embedded', path: '/var/lib/coordinator.db' },
    peers: 'loopback',
    ...more,
  })

describe('what keeps the un-synced writes of a datapath process', () => {
  let directory: string

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-power-'))
  })
  afterEach(() => rm(directory, { recursive: true }))

  /** Writes without a sync as one process, and reads as the next one, if that has the same boot id. */
  const isVouchedFor = async (config: Config): Promise<boolean> => {
    const [before, after] = [await powerOf(config, nodeRandom), await powerOf(config, nodeRandom)]
    const name = nodeRandom.uuid()
    const file = await (await before.openDisk(directory)).open(name, true)
    await file.write(new Uint8Array([7]), byteOffset(0))
    const into = new Uint8Array(1)
    await (await (await after.openDisk(directory)).open(name, true)).read(into, byteOffset(0))
    assert.equal(before.boot === after.boot, into[0] === 7, 'a boot id says what is not so')
    assert.equal(before.kernelBoot, after.kernelBoot)
    return before.boot === after.boot
  }

  it('is the kernel, and in a lab that is told so the process, with a boot id that says which', async () => {
    assert.equal(await isVouchedFor(configOf({})), true)
    assert.equal(await isVouchedFor(configOf({ lab: { unsyncedBytesMax: 1_000_000 } })), false)
  })

  it('shows what was written through a directory when that is opened again', async () => {
    const { openDisk } = await powerOf(configOf({ lab: { unsyncedBytesMax: 1_000_000 } }), nodeRandom)
    await (await (await openDisk(directory)).open('a', true)).write(new Uint8Array([7]), byteOffset(0))
    const into = new Uint8Array(1)
    await (await (await openDisk(directory)).open('a', false)).read(into, byteOffset(0))
    assert.equal(into[0], 7)
  })
})
