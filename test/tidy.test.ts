/** The repository checks itself: what a reviewer would otherwise have to look for again and again. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { ERRORS } from '../core/errors.ts'
import { projectRoot } from '../daemon/supervision/programs.ts'
import { MUTANTS } from './simulator/mutant-list.ts'

const root = projectRoot()
/** Folders that are made, not written. */
const MADE = ['node_modules', 'dist', 'coverage', '.git']
const LINES_MAX = 500

/** Files that are longer than LINES_MAX, each with the reason why it is not two. */
const LONG_FILES: Readonly<Record<string, string>> = {
  'test/simulator/mutant-list.ts': 'one table, a row for each deliberate error',
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap(entry => {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) return MADE.includes(entry.name) ? [] : filesBelow(path)
    return entry.isFile() ? [relative(root, path)] : []
  })
}

const all = filesBelow(root)
const sources = all.filter(name => /\.(ts|mts|mjs|cjs)$/.test(name))
const pages = all.filter(name => name.endsWith('.md'))
const textOf = (name: string): string => readFileSync(join(root, name), 'utf8')

describe('the repository', () => {
  it('has no source file that is too long to be about one thing', () => {
    const long = sources.filter(name => textOf(name).split('\n').length > LINES_MAX + 1)
    assert.deepEqual(
      long.filter(name => !(name in LONG_FILES)),
      []
    )
    assert.deepEqual(
      Object.keys(LONG_FILES).filter(name => !long.includes(name)),
      [],
      'listed as long, but it is not, or not any more'
    )
  })

  it('has no link in its pages that leads nowhere', () => {
    const broken = pages.flatMap(page =>
      [...textOf(page).matchAll(/\]\(([^)\s]+)\)/g)]
        .map(match => match[1]!.replace(/#.*$/, ''))
        .filter(target => target !== '' && !/^[a-z]+:/.test(target))
        .filter(target => !existsSync(join(root, dirname(page), target)))
        .map(target => `${page} -> ${target}`)
    )
    assert.deepEqual(broken, [])
  })

  it('documents every error code in its own words, and no code that is not there', () => {
    const page = textOf('docs/operating/errors.md')
    const documented = new Map(
      [...page.matchAll(/^### (\w+)\n\n([^#]*)/gm)].map(match => [match[1], match[2]!])
    )
    assert.deepEqual([...documented.keys()].sort(), Object.keys(ERRORS).sort())
    for (const [code, { sentence, next, retriable }] of Object.entries(ERRORS)) {
      const text = documented.get(code)!
      assert.ok(text.includes(sentence), `${code}: the sentence of core/errors.ts`)
      assert.ok(text.includes(next), `${code}: what comes next in core/errors.ts`)
      assert.ok(text.includes(retriable ? 'Retry: may help.' : 'Retry: does not help.'), `${code}: retry`)
    }
  })

  it('names deliberate errors that there are, and files that there are, in the reasons of the protocol', () => {
    const page = textOf('docs/internals/mirror-protocol.md')
    const reasons = page.match(/^- \*\*S\d+ [^]*?(?=\n(?:- |\n))/gm) ?? []
    assert.deepEqual(
      reasons.map(reason => Number(/S(\d+)/.exec(reason)![1])),
      reasons.map((_, index) => index + 1)
    )
    assert.ok(reasons.length > 40)
    const named = reasons.flatMap(reason => [...reason.matchAll(/_([^_]+)_/g)])
    const errors = MUTANTS.map(({ name }) => name)
    assert.deepEqual(
      named.map(match => match[1]!.replace(/\s+/g, ' ')).filter(name => !errors.includes(name)),
      []
    )
    const files = [...page.matchAll(/`([\w/-]+\.ts)`/g)].map(match => match[1]!)
    assert.deepEqual(
      files.filter(file => !sources.some(name => name === file || name.endsWith(`/${file}`))),
      []
    )
  })

  it('uses every error code', () => {
    const used = sources
      .filter(name => name !== 'core/errors.ts' && !name.startsWith('test/'))
      .map(textOf)
      .join('\n')
    const unused = Object.keys(ERRORS).filter(code => !new RegExp(`['"]${code}['"]|\\b${code}:`).test(used))
    assert.deepEqual(unused, [])
  })

  it('keeps core/ pure: it imports itself and assertions, and knows no clock, chance or process', () => {
    const impure = sources
      .filter(name => name.startsWith('core/'))
      .flatMap(name => {
        const text = textOf(name)
        const imported = [...text.matchAll(/\b(?:from|import)\s*\(?\s*'([^']+)'/g)].map(match => match[1]!)
        const strange = imported.filter(target =>
          target.startsWith('.')
            ? relative(join(root, 'core'), join(root, dirname(name), target)).startsWith('..')
            : target !== 'node:assert'
        )
        const calls =
          text.match(/\b(Date\.now|Math\.random|process\.\w+|setTimeout|performance\.now)\(/g) ?? []
        return [...strange, ...calls].map(what => `${name}: ${what}`)
      })
    assert.deepEqual(impure, [])
  })

  it('leaves nothing for later and runs all of its tests', () => {
    const left = sources.flatMap(name => {
      const lines = textOf(name).split('\n')
      return lines
        .filter(line => /\b(TO(?:)DO|FIX(?:)ME|X(?:)XX)\b|\b(describe|it)\.on(?:)ly\(/.test(line))
        .map(line => `${name}: ${line.trim()}`)
    })
    assert.deepEqual(left, [])
  })

  it('has the same licence, language level and entry points in all places that name them', () => {
    const { scripts, bin } = JSON.parse(textOf('package.json')) as {
      scripts: Record<string, string>
      bin: Record<string, string>
    }
    assert.ok(existsSync(join(root, bin['xosan']!)))
    const named = [...textOf('README.md').matchAll(/`npm (?:run )?([\w:-]+)`/g)].map(match => match[1]!)
    assert.deepEqual(
      named.filter(name => !(name in scripts) && !['ci', 'install'].includes(name)),
      []
    )
  })
})
