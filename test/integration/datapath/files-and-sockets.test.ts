import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type XosanError } from '../../../core/errors.ts'
import {
  type BootId,
  type ByteOffset,
  type HostId,
  millis,
  type SrId,
  type StoreId,
  type VolumeKey,
} from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { NbdServer } from '../../../datapath/nbd-server/nbd-server.ts'
import { AttachmentFile } from '../../../datapath/process/attachment-file.ts'
import { GuestDevice } from '../../../datapath/process/guest-device.ts'
import { GuestSockets } from '../../../datapath/process/guest-sockets.ts'
import { NodeDisk } from '../../../datapath/disk/node-disk.ts'
import { StoreFinder } from '../../../datapath/process/store-finder.ts'
import { NbdClient } from '../../../datapath/replica-remote/nbd-client.ts'
import { CLIENT_OPTIONS } from '../../support/nbd-rig.ts'

const clock = createNodeClock()
const unexpected = (error: XosanError) => assert.ifError(error)

describe('a datapath process and its files', () => {
  let directory: string
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xosan-files-'))
  })
  afterEach(() => rm(directory, { recursive: true, force: true }))

  describe('stores', () => {
    const host = randomUUID() as string as HostId
    const sr = randomUUID() as string as SrId
    const store = randomUUID() as string as StoreId
    let finder: StoreFinder
    const place = () => join(directory, 'store')
    const makeStore = async (path: string, identity: object = { format: 1, sr, host, store }) => {
      await mkdir(path)
      await writeFile(join(path, 'store.json'), JSON.stringify(identity))
    }
    const missing = (reason: RegExp) => (error: XosanError) => {
      assert.equal(error.code, 'STORE_MISSING')
      assert.match(error.message, reason)
      return true
    }

    beforeEach(async () => {
      const file = join(directory, 'stores.json')
      finder = new StoreFinder(file, host, path => NodeDisk.open(path))
      await finder.reload()
      await assert.rejects(finder.store(sr), missing(/not attached/))
      await writeFile(file, JSON.stringify({ version: 1, stores: [{ sr, store, directory: place() }] }))
      await finder.reload()
    })

    it('are used only when their id is found, and then at once', async () => {
      await assert.rejects(finder.store(sr), missing(/ENOENT/))
      await mkdir(place())
      await assert.rejects(finder.store(sr), missing(/ENOENT.*store\.json/))
      await rm(place(), { recursive: true })
      await makeStore(place())
      assert.equal((await finder.store(sr)).id, store)
    })

    it("are not used when they are another store, or another host's", async () => {
      for (const wrong of [{ store: randomUUID() }, { host: randomUUID() }, { sr: randomUUID() }]) {
        await makeStore(place(), { format: 1, sr, host, store, ...wrong })
        await assert.rejects(finder.store(sr), missing(/is there/))
        await rm(place(), { recursive: true })
      }
    })

    it('are looked for again when another file system lies over them', async () => {
      await makeStore(place())
      const found = await finder.store(sr)
      assert.equal(await finder.store(sr), found)
      await rename(place(), join(directory, 'away'))
      await mkdir(place())
      await assert.rejects(finder.store(sr), missing(/ENOENT/))
      await rm(place(), { recursive: true })
      await rename(join(directory, 'away'), place())
      assert.equal((await finder.store(sr)).id, store)
    })

    it('stay known when the file that names them is damaged', async () => {
      await makeStore(place())
      await writeFile(join(directory, 'stores.json'), '{"version":1,')
      await assert.rejects(finder.reload(), { code: 'RECORD_INVALID' })
      assert.equal((await finder.store(sr)).id, store)
    })
  })

  describe('attachments', () => {
    const boot = randomUUID() as string as BootId
    const attachment = {
      sr: randomUUID() as string as SrId,
      volume: randomUUID() as string as VolumeKey,
      activated: true,
    }
    const fileOf = (ofBoot: BootId, damaged: (error: XosanError) => void = unexpected) =>
      new AttachmentFile(join(directory, 'attached-0.json'), ofBoot, damaged)

    it('are found by the next process of the same boot, and forgotten by the next boot', async () => {
      assert.deepEqual(await fileOf(boot).load(), [])
      await fileOf(boot).save([{ ...attachment, activated: false }])
      await fileOf(boot).save([attachment])
      assert.deepEqual(await fileOf(boot).load(), [attachment])
      assert.deepEqual(await fileOf(randomUUID() as string as BootId).load(), [])
      assert.deepEqual(await readdir(directory), ['attached-0.json'])
    })

    it('do not keep a process from starting when their file is damaged', async () => {
      await writeFile(join(directory, 'attached-0.json'), '[]')
      const errors: XosanError[] = []
      assert.deepEqual(await fileOf(boot, error => errors.push(error)).load(), [])
      assert.equal(errors[0]?.code, 'RECORD_INVALID')
    })
  })

  describe('the sockets of guests', () => {
    let server: NbdServer
    let sockets: GuestSockets
    const volume = randomUUID() as string as VolumeKey
    const connect = (path: string) =>
      NbdClient.connect({ ...CLIENT_OPTIONS, address: { path } }, millis(10_000))

    beforeEach(async () => {
      server = new NbdServer({
        clock,
        log: () => undefined,
        exports: { open: () => assert.fail(), info: () => assert.fail(), list: () => assert.fail() },
      })
      sockets = new GuestSockets(server, join(directory, 'nbd'))
    })
    afterEach(() => server.close())

    it('break off a request that waits for ever without answering it', async () => {
      await sockets.prepare(() => true)
      const path = await sockets.open(volume, new GuestDevice((1024 * 1024) as never))
      const client = await connect(path)
      assert.equal(sockets.connectionsTo(volume), 1)
      // An error reply would tell the guest that its disk has failed; a broken connection leaves it open.
      const held = assert.rejects(client.read(0 as ByteOffset, Buffer.alloc(512)), {
        code: 'PEER_UNREACHABLE',
      })
      const flushed = assert.rejects(client.flush(), { code: 'PEER_UNREACHABLE' })
      while (server.bytesInFlight === 0) await new Promise(resolve => setImmediate(resolve))
      sockets.disconnect(volume, 'deactivated')
      await Promise.all([held, flushed])
      const again = await connect(path)
      await sockets.close(volume)
      await again.closed
      assert.deepEqual(await readdir(join(directory, 'nbd')), [])
      assert.equal(server.bytesInFlight, 0)
      assert.equal(sockets.socketOf(volume), null)
    })

    it('of dead processes are removed, those of the other processes of the host are not', async () => {
      const [ours, theirs] = [randomUUID() as string as VolumeKey, randomUUID() as string as VolumeKey]
      await mkdir(join(directory, 'nbd'))
      for (const name of [ours, theirs, 'something-else']) await writeFile(join(directory, 'nbd', name), '')
      await sockets.prepare(key => key === ours)
      assert.deepEqual((await readdir(join(directory, 'nbd'))).sort(), [theirs, 'something-else'].sort())
    })
  })
})
