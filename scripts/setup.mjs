/**
 * Makes a fresh clone ready to run: installs the packages of package-lock.json, builds dist/, and makes
 * `npx xosan` work here. Does nothing that is already done, so every command may call it first.
 *
 *   node scripts/setup.mjs               install what changed, build
 *   node scripts/setup.mjs --build-only  build
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const started = performance.now()

const lock = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex')
const wanted = `${lock} ${process.versions.modules}`
const stampFile = join(root, 'node_modules', '.xosan-setup')
const installed = existsSync(stampFile) && readFileSync(stampFile, 'utf8') === wanted

if (!installed && !process.argv.includes('--build-only')) {
  console.log('set-up: installing packages (npm ci; better-sqlite3 may compile for a minute)')
  execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  writeFileSync(stampFile, wanted)
}

const { buildAll } = await import('./build.mjs')
await buildAll()

// npx looks for a package's own commands among its dependencies' ones.
const link = join(root, 'node_modules', '.bin', 'xosan')
mkdirSync(join(root, 'node_modules', '.bin'), { recursive: true })
rmSync(link, { force: true })
symlinkSync('../../bin/xosan', link)

const seconds = ((performance.now() - started) / 1000).toFixed(1)
console.log(`set-up: ${installed ? 'packages present, ' : ''}built dist/ (${seconds} s)`)
