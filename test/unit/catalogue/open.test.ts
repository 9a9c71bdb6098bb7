import assert from 'node:assert/strict'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import Database from 'better-sqlite3'
import { openCatalogue } from '../../../catalogue/open.ts'
import { MIGRATIONS, type Migration } from '../../../catalogue/schema/migrations.ts'
import { hasCode } from '../../../core/errors.ts'
import { TemporaryDirectory } from './temporary-directory.ts'

const next: Migration = {
  version: MIGRATIONS.at(-1)!.version + 1,
  neverLoses: 'records',
  apply: database => void database.exec('ALTER TABLE records ADD COLUMN extra TEXT'),
}
const failing: Migration = {
  ...next,
  apply(database) {
    database.exec('DELETE FROM records')
    throw new Error('half-way')
  },
}
const position = { identity: 'an identity', revision: 7 }
const entries = [{ key: 'hosts/unknown', value: 'raw text', revision: 7 }]

describe('opening the catalogue', () => {
  let directory: TemporaryDirectory

  beforeEach(() => {
    directory = new TemporaryDirectory()
  })
  afterEach(() => directory.remove())

  function fill(): void {
    const { catalogue } = openCatalogue(directory.catalogue)
    catalogue.replaceAll(entries, position)
    catalogue.close()
  }

  it('makes a file that only its owner can read', () => {
    fill()
    assert.equal(statSync(directory.catalogue).mode & 0o777, 0o600)
  })

  it('keeps everything when it is opened again', () => {
    fill()
    const { catalogue, damaged } = openCatalogue(directory.catalogue)
    assert.equal(damaged, null)
    assert.deepEqual(catalogue.records.list(''), entries)
    assert.deepEqual(catalogue.position(), position)
    catalogue.close()
  })

  it('keeps a complete copy of the file from before a migration, and every record through it', () => {
    fill()
    const { catalogue } = openCatalogue(directory.catalogue, [...MIGRATIONS, next])
    assert.deepEqual(catalogue.records.list(''), entries)
    catalogue.close()
    const backup = `${directory.catalogue}.version-1`
    assert.equal(statSync(backup).mode & 0o777, 0o600)
    const before = openCatalogue(backup)
    assert.deepEqual(before.catalogue.records.list(''), entries)
    assert.deepEqual(before.catalogue.position(), position)
    before.catalogue.close()
  })

  it('is unchanged when a migration fails half-way', () => {
    fill()
    assert.throws(() => openCatalogue(directory.catalogue, [...MIGRATIONS, failing]), /half-way/)
    const { catalogue } = openCatalogue(directory.catalogue)
    assert.deepEqual(catalogue.records.list(''), entries)
    catalogue.close()
  })

  it('refuses the file of a newer version and leaves it as it is', () => {
    openCatalogue(directory.catalogue, [...MIGRATIONS, next]).catalogue.close()
    const before = readFileSync(directory.catalogue)
    assert.throws(
      () => openCatalogue(directory.catalogue),
      error => hasCode(error, 'DATABASE_FOREIGN') && error.message.includes('version is 2')
    )
    assert.deepEqual(readFileSync(directory.catalogue), before)
  })

  it('refuses a database that is no catalogue and leaves it as it is', () => {
    const other = new Database(directory.catalogue)
    other.exec('CREATE TABLE precious (value TEXT)')
    other.close()
    const before = readFileSync(directory.catalogue)
    assert.throws(
      () => openCatalogue(directory.catalogue),
      error => hasCode(error, 'DATABASE_FOREIGN')
    )
    assert.deepEqual(readFileSync(directory.catalogue), before)
  })

  for (const [what, damage] of [
    ['is no database at all', () => Buffer.from('these are not the bytes of a database '.repeat(200))],
    [
      'has a page overwritten',
      (content: Buffer) =>
        Buffer.concat([content.subarray(0, 4096), Buffer.alloc(4096, 0xa5), content.subarray(8192)]),
    ],
    ['is cut short', (content: Buffer) => content.subarray(0, content.length / 2)],
  ] as const) {
    it(`sets a file aside that ${what}, and starts a new one`, () => {
      fill()
      const bytes = damage(readFileSync(directory.catalogue))
      writeFileSync(directory.catalogue, bytes)
      const { catalogue, damaged } = openCatalogue(directory.catalogue)
      assert.ok(damaged !== null)
      assert.deepEqual(readFileSync(damaged.setAside), bytes)
      assert.deepEqual(catalogue.position(), { identity: null, revision: 0 })
      assert.deepEqual(catalogue.records.list(''), [])
      catalogue.close()
      assert.equal(openAgain(), null)
    })
  }

  function openAgain(): unknown {
    const { catalogue, damaged } = openCatalogue(directory.catalogue)
    catalogue.close()
    return damaged
  }

  it('never puts one damaged file over another', () => {
    for (const content of ['first', 'second']) {
      writeFileSync(directory.catalogue, content.repeat(1000))
      const { catalogue } = openCatalogue(directory.catalogue)
      catalogue.close()
    }
    assert.ok(readFileSync(`${directory.catalogue}.damaged-1`, 'utf8').startsWith('first'))
    assert.ok(readFileSync(`${directory.catalogue}.damaged-2`, 'utf8').startsWith('second'))
    assert.ok(!existsSync(`${directory.catalogue}.damaged-3`))
  })

  it('examines records again that were examined by the rules of another version', () => {
    fill()
    const database = new Database(directory.catalogue)
    database.exec('UPDATE position SET examined_as = 0; UPDATE records SET problem = NULL')
    database.close()
    const { catalogue } = openCatalogue(directory.catalogue)
    assert.deepEqual(
      catalogue.records.problems('').map(({ key }) => key),
      ['hosts/unknown']
    )
    catalogue.close()
  })
})
