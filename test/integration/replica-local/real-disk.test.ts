import assert from 'node:assert/strict'
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import {
  byteLength,
  byteOffset,
  type BootId,
  type Epoch,
  type LayerId,
  type ReplicaId,
  type StoreId,
  type VolumeKey,
} from '../../../core/units.ts'
import { NodeDisk } from '../../../datapath/disk/node-disk.ts'
import { LocalReplica } from '../../../datapath/replica-local/local-replica.ts'
import { type ReplicaSpec } from '../../../datapath/replica-local/replica-directory.ts'

const run = promisify(execFile)
const MIB = 1024 * 1024
const BLOCK = 4096
const SIZE = 64 * MIB
const BOOT = randomUUID() as BootId
const WRITER = join(import.meta.dirname, 'writer.ts')

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value)

const newSpec = (): ReplicaSpec => ({
  volume: randomUUID() as VolumeKey,
  replica: randomUUID() as ReplicaId,
  store: randomUUID() as StoreId,
  layers: [randomUUID() as LayerId],
  size: byteLength(SIZE),
})

describe('a local replica on a real file system', function () {
  this.timeout(60_000)

  let directory: string
  let disk: NodeDisk
  let spec: ReplicaSpec
  let children: ChildProcess[]

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-replica-'))
    disk = await NodeDisk.open(directory)
    spec = newSpec()
    children = []
  })

  afterEach(async () => {
    for (const child of children) child.kill('SIGKILL')
    await rm(directory, { recursive: true })
  })

  async function openNew(): Promise<LocalReplica> {
    await LocalReplica.create(disk, spec)
    const replica = await LocalReplica.open(disk, spec.volume, BOOT)
    await replica.acceptEpoch((replica.acceptedEpoch + 1) as Epoch, { rebuilding: false })
    return replica
  }

  const rawPath = (): string => join(directory, 'volumes', spec.volume, `${spec.layers[0]!}.raw`)

  function startWriter(seed: number): ChildProcess {
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', WRITER, directory, spec.volume, BOOT, String(seed)],
      { stdio: ['ignore', 'pipe', 'inherit'] }
    )
    children.push(child)
    return child
  }

  it('is a raw file that qemu-img opens as the volume', async function () {
    const replica = await openNew()
    await replica.write({ offset: byteOffset(5 * MIB + 3), data: bytes(100_000, 0x5a), durable: true })
    await replica.markClean()
    await replica.close()
    const qemu = await run('qemu-img', ['--version']).catch(() => undefined)
    if (qemu === undefined) this.skip()
    const { stdout } = await run('qemu-img', ['info', '-f', 'raw', '--output=json', rawPath()])
    const info = JSON.parse(stdout) as { 'virtual-size': number; 'actual-size': number }
    assert.equal(info['virtual-size'], SIZE)
    assert.ok(info['actual-size'] < MIB, `${info['actual-size']} bytes are taken`)
    const expected = bytes(SIZE, 0).fill(0x5a, 5 * MIB + 3, 5 * MIB + 3 + 100_000)
    const reference = join(directory, 'expected')
    await writeFile(reference, expected)
    // Exits with an error when the images differ.
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', rawPath(), reference])
  })

  it('takes space for what was written and gives it back when that is trimmed', async () => {
    const replica = await openNew()
    const empty = await replica.physicalBytes()
    await replica.write({ offset: byteOffset(0), data: bytes(8 * MIB, 1), durable: true })
    const full = await replica.physicalBytes()
    assert.ok(full - empty >= 8 * MIB, `${full - empty} bytes are taken`)
    await replica.trim({ offset: byteOffset(0), length: byteLength(8 * MIB), durable: true })
    const trimmed = await replica.physicalBytes()
    assert.ok(trimmed - empty < MIB, `${trimmed - empty} bytes are still taken`)
    await replica.close()
  })

  it('works where the file system cannot punch holes', async () => {
    disk = await NodeDisk.open(directory, () =>
      Promise.reject(Object.assign(new Error('no holes here'), { code: 'EOPNOTSUPP' }))
    )
    const replica = await openNew()
    await replica.write({ offset: byteOffset(0), data: bytes(MIB, 1), durable: true })
    await replica.trim({ offset: byteOffset(BLOCK), length: byteLength(MIB - BLOCK), durable: true })
    const into = bytes(MIB, 2)
    await replica.read(byteOffset(0), into)
    assert.deepEqual(into.subarray(0, BLOCK), bytes(BLOCK, 1))
    assert.deepEqual(into.subarray(BLOCK), bytes(MIB - BLOCK, 0))
    assert.equal((await stat(rawPath())).size, SIZE)
    await replica.close()
  })

  it('belongs to one process at a time, and is free again when that is killed', async () => {
    await (await openNew()).close()
    const child = startWriter(1)
    await once(createInterface(child.stdout!), 'line')
    await assert.rejects(LocalReplica.open(disk, spec.volume, BOOT), { code: 'REPLICA_LOCKED' })
    child.kill('SIGKILL')
    await once(child, 'exit')
    await (await LocalReplica.open(disk, spec.volume, BOOT)).close()
  })

  it('keeps every acknowledged write of a process that is killed in the middle of its writing', async () => {
    await (await openNew()).close()
    // What each block holds by the last acknowledgement, and what was under way.
    const acknowledged = new Map<number, number>()
    const underWay = new Map<number, number>()
    let lines = 0
    for (let round = 1; round <= 3; round += 1) {
      const child = startWriter(round)
      const killAfter = lines + 300 * round
      for await (const line of createInterface(child.stdout!)) {
        const [what, block, value] = line.split(' ') as [string, string, string]
        if (what === 'begin') underWay.set(Number(block), Number(value))
        if (what === 'done') {
          acknowledged.set(Number(block), Number(value))
          underWay.delete(Number(block))
        }
        lines += 1
        if (lines === killAfter) child.kill('SIGKILL')
      }
      const replica = await LocalReplica.open(disk, spec.volume, BOOT)
      assert.equal(replica.mayHaveLost, false)
      const into = new Uint8Array(BLOCK)
      for (const block of new Set([...acknowledged.keys(), ...underWay.keys()])) {
        await replica.read(byteOffset(block * BLOCK), into)
        const value = into[0]!
        const started = underWay.get(block)
        if (started === undefined) {
          assert.equal(value, acknowledged.get(block), `block ${block}`)
          assert.ok(
            into.every(byte => byte === value),
            `block ${block} is torn`
          )
        }
        acknowledged.set(block, value)
      }
      underWay.clear()
      await replica.close()
    }
    assert.ok(acknowledged.size > 100, `only ${acknowledged.size} blocks were written`)
  })

  it('has the same content after it was opened under another boot, once it was flushed', async () => {
    const replica = await openNew()
    for (let at = 0; at < 200; at += 1) {
      const offset = byteOffset((at * 7919 * 512) % (SIZE - 3000))
      await replica.write({ offset, data: bytes(3000, at + 1), durable: false })
    }
    await replica.flush()
    const digest = async (of: LocalReplica): Promise<string> => {
      const into = new Uint8Array(SIZE)
      await of.read(byteOffset(0), into)
      return createHash('sha256').update(into).digest('hex')
    }
    const before = await digest(replica)
    await replica.close()
    const later = await LocalReplica.open(disk, spec.volume, randomUUID() as BootId)
    assert.equal(await digest(later), before)
    assert.equal(later.mayHaveLost, true)
    await later.close()
  })

  it('lets no name lead out of the store', async () => {
    await mkdir(join(directory, 'inside'))
    const outside = await mkdtemp(join(tmpdir(), 'xosan-outside-'))
    try {
      await writeFile(join(outside, 'file'), 'theirs')
      await symlink(outside, join(directory, 'link'))
      await symlink(join(outside, 'file'), join(directory, 'inside', 'file'))
      const wrong = [
        '../x',
        '/etc/passwd',
        'a//b',
        'inside/../../x',
        '.',
        '..',
        'inside/.',
        'a\0b',
        'a b',
        '.hidden',
      ]
      for (const name of wrong) await assert.rejects(disk.open(name, true), { code: 'EINVAL' }, name)
      for (const name of ['link/file', 'link/new']) {
        await assert.rejects(disk.open(name, true), { code: 'ELOOP' }, name)
        await assert.rejects(disk.remove(name), { code: 'ELOOP' }, name)
      }
      await assert.rejects(disk.open('inside/file', true), { code: 'ELOOP' })
      await assert.rejects(disk.rename('inside/file', 'link/file'), { code: 'ELOOP' })
      await assert.rejects(disk.makeDirectory('link'), { code: 'EEXIST' })
      await assert.rejects(disk.makeDirectory('link/x'))
      // Removing a link removes the link.
      await disk.remove('inside/file')
      assert.equal((await stat(join(outside, 'file'))).size, 6)
    } finally {
      await rm(outside, { recursive: true })
    }
  })
})
