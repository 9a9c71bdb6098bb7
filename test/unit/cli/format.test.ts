import assert from 'node:assert/strict'
import fc from 'fast-check'
import { formatBytes, formatDuration, formatProgress, formatTable, wrapText } from '../../../cli/format.ts'

describe('numbers for people', () => {
  it('gives bytes in the unit that leaves three digits', () => {
    const expected: [number, string][] = [
      [0, '0 B'],
      [1023, '1023 B'],
      [1024, '1.00 KiB'],
      [1536, '1.50 KiB'],
      [10.25 * 1024, '10.3 KiB'],
      [999 * 1024, '999 KiB'],
      [1023.9 * 1024, '1.00 MiB'],
      [2 ** 40, '1.00 TiB'],
      [64 * 2 ** 40, '64.0 TiB'],
    ]
    for (const [bytes, text] of expected) assert.equal(formatBytes(bytes), text)
  })

  it('gives durations without needless digits', () => {
    const expected: [number, string][] = [
      [0, '0.0 s'],
      [9_940, '9.9 s'],
      [9_960, '10 s'],
      [59_400, '59 s'],
      [59_600, '1 min 00 s'],
      [185_000, '3 min 05 s'],
      [7_800_000, '2 h 10 min'],
    ]
    for (const [milliseconds, text] of expected) assert.equal(formatDuration(milliseconds), text)
  })

  it('says how much of a copy is left, also before anything was copied', () => {
    assert.match(formatProgress(0, 100, 0), /^\[\.{20}\] 0 % .* time left unknown$/)
    assert.match(formatProgress(2 ** 20, 2 ** 22, 1000), /^\[#{5}\.{15}\] 25 % .* 3\.0 s left$/)
    assert.match(formatProgress(0, 0, 10), /100 %/)
  })
})

describe('a table', () => {
  const columns = [
    { title: 'NAME', value: (row: readonly string[]) => row[0]!, shrinks: true },
    { title: 'SIZE', value: (row: readonly string[]) => row[1]!, align: 'right' as const },
  ]

  it('stands in columns', () => {
    assert.deepEqual(
      formatTable(
        [
          ['one', '1'],
          ['three', '333'],
        ],
        columns,
        80
      ),
      ['NAME   SIZE', 'one       1', 'three   333']
    )
  })

  it('never exceeds the width, and cuts the column that may shrink first', () => {
    assert.deepEqual(formatTable([['a very long name indeed', '12345']], columns, 18), [
      'NAME          SIZE',
      'a very lon…  12345',
    ])
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.string(), fc.string())),
        fc.integer({ min: 1, max: 60 }),
        (rows, width) => {
          for (const line of formatTable(rows, columns, width)) assert.ok(line.length <= width)
        }
      )
    )
  })
})

describe('a text', () => {
  it('is broken at spaces, and only a word that is too long exceeds the width', () => {
    assert.deepEqual(wrapText('state  one two three', 14, '       '), ['state  one two', '       three'])
    assert.deepEqual(wrapText('a-word-too-long b', 5, ' '), ['a-word-too-long', ' b'])
    const words = fc.array(fc.stringMatching(/^[a-z]{1,9}$/), { minLength: 1, maxLength: 30 })
    fc.assert(
      fc.property(words, fc.integer({ min: 12, max: 40 }), (given, width) => {
        const lines = wrapText(given.join(' '), width, '  ')
        assert.ok(lines.every(line => line.length <= width))
        assert.deepEqual(
          lines.flatMap(line => line.trim().split(' ')),
          given
        )
      })
    )
  })
})
