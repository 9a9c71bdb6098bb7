import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import Database from 'better-sqlite3'
import { EmbeddedDatabase } from '../../../cluster/embedded/database.ts'
import { openEmbeddedCoordinator } from '../../../cluster/embedded/embedded-coordinator.ts'
import { hasCode } from '../../../core/errors.ts'
import { type Coordinator } from '../../../core/ports/coordinator.ts'
import { millis } from '../../../core/units.ts'
import { createNodeClock } from '../../../daemon/ports/node-clock.ts'
import { nodeRandom } from '../../../daemon/ports/node-random.ts'
import { Child } from './child.ts'

const COUNTER = import.meta.resolve('./counter-worker.ts')
const LOCK_HOLDER = import.meta.resolve('./lock-holder.ts')

describe('the embedded coordinator shared by processes', function () {
  this.timeout(120_000)
  let directory: string
  let path: string
  let children: Child[]
  let clients: Coordinator[]

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'xosan-coordinator-'))
    path = join(directory, 'private', 'coordinator.sqlite')
    children = []
    clients = []
  })
  afterEach(async () => {
    await Promise.all(children.map(async child => child.kill()))
    await Promise.all(clients.map(async client => client.close()))
    rmSync(directory, { recursive: true })
  })

  async function open(callTimeMs = 60_000, pollIntervalMs = 20): Promise<Coordinator> {
    const client = await openEmbeddedCoordinator({
      path,
      clock: createNodeClock(),
      random: nodeRandom,
      callTimeMs: millis(callTimeMs),
      pollIntervalMs: millis(pollIntervalMs),
    })
    clients.push(client)
    return client
  }

  function start(script: string, ...argv: string[]): Child {
    const child = new Child(script, path, ...argv)
    children.push(child)
    return child
  }

  it('counts every increment of four processes once, while one is stopped and one is killed', async () => {
    const times = 200
    const counters = ['a', 'b', 'c', 'killed'].map(name => start(COUNTER, name, String(times)))
    const [first, , , killed] = counters
    await Promise.all([first!.reached(20), killed!.reached(20)])
    // It may stop with the write lock in hand; then nobody counts until it goes on.
    first!.process.kill('SIGSTOP')
    await killed!.kill()
    await delay(300)
    first!.process.kill('SIGCONT')
    for (const counter of counters.slice(0, 3)) {
      assert.equal(await counter.exit(), 0)
    }
    const { entry } = await (await open()).read('counts')
    const { killed: last = 0, ...others } = JSON.parse(entry!.value) as Record<string, number>
    assert.deepEqual(others, { a: times, b: times, c: times })
    const acknowledged = killed!.lines - 1
    assert.ok(last === acknowledged || last === acknowledged + 1, `${last} made, ${acknowledged} told`)
    assert.equal(entry!.revision, 3 * times + last)
  })

  it('times out without freezing while a stopped process holds the lock, and goes on once that is dead', async () => {
    const client = await open(500)
    await client.transact([], [{ key: 'a', value: '1' }])
    const holder = start(LOCK_HOLDER)
    await holder.reached(1)
    holder.process.kill('SIGSTOP')

    let turns = 0
    const counting = setInterval(() => turns++, 5)
    await assert.rejects(
      client.transact([], [{ key: 'a', value: '2' }]),
      error => hasCode(error, 'COORDINATOR_UNAVAILABLE') && error.message.includes('500 ms')
    )
    clearInterval(counting)
    assert.ok(turns >= 10, `the loop turned ${turns} times in 500 ms`)
    assert.equal((await client.read('a')).entry?.value, '1')

    const waiting = (await open()).transact([], [{ key: 'a', value: '3' }])
    await delay(20)
    await holder.kill()
    assert.equal((await waiting).committed, true)
    assert.deepEqual(
      (await client.list('')).entries.map(({ key, value }) => [key, value]),
      [['a', '3']]
    )
  })

  it('ends the calls that wait when it is closed', async () => {
    const client = await open()
    const holder = start(LOCK_HOLDER)
    await holder.reached(1)
    const refused = assert.rejects(client.transact([], [{ key: 'a', value: '2' }]), error =>
      hasCode(error, 'COORDINATOR_UNAVAILABLE')
    )
    await client.close()
    await refused
  })

  it('tells a watch in this process what another process changes, without waiting for the next look', async () => {
    const client = await open(60_000, 3_600_000)
    const seen = new Promise<void>((resolve, reject) => {
      let count = 0
      client.watch('counts', 0, {
        changed(_, events) {
          count += events.length
          if (count === 10) {
            resolve()
          }
        },
        failed: reject,
      })
    })
    start(COUNTER, 'a', '10')
    await seen
  })

  it('tells a watch what was changed by a process that died before it could ring the bell', async () => {
    const client = await open()
    const seen = new EventEmitter()
    client.watch('a', 0, {
      changed: (reached, events) => events.length > 0 && seen.emit('change', reached),
      failed: error => seen.emit('error', error),
    })
    const first = once(seen, 'change')
    await client.transact([], [{ key: 'a', value: '0' }])
    await first
    const second = once(seen, 'change')
    const silent = new EmbeddedDatabase(path, 100)
    const { revision } = silent.transact([], [{ key: 'a', value: '1' }])
    silent.close()
    assert.deepEqual(await second, [revision])
  })

  it('keeps its files readable by their owner only', async () => {
    const client = await open()
    await client.transact([], [{ key: 'a', value: '1' }])
    assert.equal(statSync(join(directory, 'private')).mode & 0o777, 0o700)
    for (const end of ['', '-wal', '-shm', '-bell']) {
      assert.equal(statSync(path + end).mode & 0o777, 0o600)
    }
  })

  it('keeps its entries, revision and history when it is opened again', async () => {
    const before = await open()
    await before.transact([], [{ key: 'a', value: '1' }])
    const { revision } = await before.transact([], [{ key: 'a', value: '2' }])
    await before.close()
    const after = await open()
    assert.deepEqual((await after.read('a')).entry, { key: 'a', value: '2', revision })
    const events = await new Promise<unknown>((resolve, reject) => {
      after.watch('', 1, { changed: (_, batch) => resolve(batch), failed: reject })
    })
    assert.deepEqual(events, [{ key: 'a', value: '2' }])
  })

  it('is laid out once when many open it for the first time at once', async () => {
    const opened = await Promise.all(Array.from({ length: 8 }, async () => open()))
    await Promise.all(opened.map(async (client, i) => client.transact([], [{ key: `k${i}`, value: '' }])))
    assert.equal((await opened[0]!.list('')).entries.length, 8)
  })

  it('says that the outcome is unknown when the commit itself fails, and only then', async () => {
    const client = await open()
    const other = new Database(path)
    // A constraint that SQLite checks at COMMIT stands in for a disk that fails there.
    other.exec(`
      CREATE TABLE parent (id INTEGER PRIMARY KEY);
      CREATE TABLE child (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
      CREATE TRIGGER at_commit AFTER INSERT ON entries BEGIN INSERT INTO child VALUES (1); END`)
    const change = async (): Promise<unknown> => client.transact([], [{ key: 'a', value: '1' }])
    await assert.rejects(change(), error => hasCode(error, 'COORDINATOR_OUTCOME_UNKNOWN'))
    other.exec(`
      DROP TRIGGER at_commit;
      CREATE TRIGGER at_once BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'the disk fails'); END`)
    await assert.rejects(change(), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
    other.exec('DROP TRIGGER at_once')
    other.close()
    assert.deepEqual(await client.list(''), { entries: [], revision: 0 })
    await change()
    assert.equal((await client.read('a')).revision, 1)
  })

  it('refuses a file that is damaged or of something else, in clear words, and leaves it as it is', async () => {
    await (await open()).close()
    const garbage = Buffer.from('not a database at all '.repeat(500))
    writeFileSync(path, garbage)
    await assert.rejects(open(), error => hasCode(error, 'DATABASE_DAMAGED') && error.message.includes(path))
    assert.deepEqual(readFileSync(path), garbage)

    path = join(directory, 'other.sqlite')
    const other = new Database(path)
    other.exec('CREATE TABLE precious (value TEXT)')
    other.close()
    const before = readFileSync(path)
    await assert.rejects(open(), error => hasCode(error, 'DATABASE_FOREIGN'))
    assert.deepEqual(readFileSync(path), before)
  })

  it('says why when it cannot be opened at all', async () => {
    path = join(directory, 'a file', 'coordinator.sqlite')
    writeFileSync(join(directory, 'a file'), '')
    await assert.rejects(open(), error => hasCode(error, 'COORDINATOR_UNAVAILABLE'))
  })
})
