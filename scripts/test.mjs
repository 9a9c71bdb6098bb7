/**
 * `npm test`: sets up, checks the sources, and runs every kind of test in turn, the cheap ones first. Ends with one
 * line of totals and the exit code that belongs to it. What cannot run here is said.
 *
 *   node scripts/test.mjs            everything
 *   node scripts/test.mjs unit ...   only the stages with these names
 */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const startedAt = performance.now()

/** Debian packages of foreign programs that tests run against ours, and a program by which each is known. */
const FOREIGN = {
  'qemu-utils': 'qemu-img',
  nbdkit: 'nbdkit',
  'libnbd-bin': 'nbdinfo',
  'python3-libnbd': 'nbdsh',
  'nbd-client': 'nbd-client',
  'nbd-server': 'nbd-server',
  fio: 'fio',
  e2fsprogs: 'mke2fs',
  iproute2: 'ip',
  'etcd-server': 'etcd',
  openssl: 'openssl',
  bindfs: 'bindfs',
}

/** Kinds of evidence. Those that decide in `core/` are measured for coverage. */
const MOCHA_STAGES = [
  { name: 'unit', coverage: true },
  { name: 'property', coverage: true },
  { name: 'contract', coverage: true },
  { name: 'simulator', coverage: true },
  { name: 'scenarios', coverage: true },
  { name: 'integration' },
  { name: 'faults' },
]

const totals = { passed: 0, failed: 0 }
const skipped = []
const coverageDirectory = mkdtempSync(join(tmpdir(), 'xosan-coverage-'))

function onPath(program) {
  const directories = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  return directories.some(directory => existsSync(join(directory, program)))
}

/** How long a finished mocha may take to end; then a test has left something open, which is a fault of its own. */
const LINGER_MS = 20_000

/** @param results file that the program writes when it has finished, and should end */
function run(program, words, { env = process.env, quiet = false, results = null } = {}) {
  return new Promise(resolve => {
    const child = spawn(program, words, {
      cwd: root,
      env,
      stdio: ['ignore', quiet ? 'ignore' : 'inherit', quiet ? 'ignore' : 'inherit'],
    })
    child.once('error', error => {
      console.error(`${program}: ${error.message}`)
      resolve(127)
    })
    let finishedAt = null
    const watch = setInterval(() => {
      if (results === null || !existsSync(results)) return
      finishedAt ??= performance.now()
      if (performance.now() - finishedAt > LINGER_MS) {
        console.error('the tests have finished, but something that they left open keeps the process: killed')
        clearInterval(watch)
        child.kill('SIGKILL')
      }
    }, 500)
    child.once('close', code => {
      clearInterval(watch)
      resolve(code ?? 1)
    })
  })
}

async function stage(name, what, action) {
  if (process.argv.length > 2 && !process.argv.slice(2).includes(name)) return
  console.log(`\n--- ${name}: ${what}`)
  const begun = performance.now()
  await action()
  console.log(`--- ${name}: ${((performance.now() - begun) / 1000).toFixed(1)} s`)
}

/** Installs what is missing where that is allowed; else says which tests will be skipped for it. */
async function foreignPrograms() {
  const missing = () => Object.entries(FOREIGN).filter(([, program]) => !onPath(program))
  if (missing().length > 0 && process.getuid?.() === 0 && onPath('apt-get')) {
    const names = missing().map(([name]) => name)
    console.log(`installing ${names.join(' ')} with apt-get`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    const install = ['-qq', '-y', '--no-install-recommends', 'install', ...names]
    if ((await run('apt-get', install, { env, quiet: true })) !== 0) {
      await run('apt-get', ['-qq', 'update'], { env, quiet: true })
      await run('apt-get', install, { env, quiet: true })
    }
  }
  for (const [name, program] of missing()) {
    skipped.push(
      `tests that need ${program} (Debian package ${name}; install it, or run as root with apt-get)`
    )
  }
  console.log(
    missing().length === 0
      ? 'all there'
      : `missing: ${missing()
          .map(([name]) => name)
          .join(' ')}`
  )
}

/** Runs one mocha stage and adds its totals. The results come through a file: the output is for people. */
async function mocha({ name, files, coverage }) {
  const results = join(coverageDirectory, `${name}.json`)
  const env = { ...process.env, FORCE_COLOR: '0', XOSAN_TEST_RESULTS: results }
  if (coverage) env.NODE_V8_COVERAGE = join(coverageDirectory, 'v8')
  // tsx is loaded here, as .mocharc.json would do by way of a second process, which a kill would not reach.
  const words = [
    '--import',
    'tsx',
    join('node_modules', 'mocha', 'lib', 'cli', 'cli.js'),
    '--reporter',
    join('scripts', 'mocha-reporter.cjs'),
    files,
  ]
  const code = await run(process.execPath, words, { env, results })
  const report = existsSync(results) ? JSON.parse(readFileSync(results, 'utf8')) : null
  totals.passed += report?.passes ?? 0
  // A run that broke off has no totals, and must not look like one that had nothing to do.
  totals.failed += report?.failures ?? (code === 0 ? 0 : 1)
  if (report !== null && report.failures === 0 && code !== 0) totals.failed += 1
  for (const title of report?.pending ?? []) skipped.push(title)
}

function hasTests(name) {
  const directory = join(root, 'test', name)
  return (
    existsSync(directory) &&
    readdirSync(directory, { recursive: true }).some(file => file.endsWith('.test.ts'))
  )
}

async function check(script) {
  const code = await run('npm', ['run', '--silent', script])
  if (code === 0) totals.passed += 1
  else totals.failed += 1
  console.log(`${script}: ${code === 0 ? 'clean' : 'FAILED'}`)
}

try {
  await stage('set-up', 'packages, dist/', () => {
    execFileSync(process.execPath, [join(root, 'scripts', 'setup.mjs')], { stdio: 'inherit' })
  })
  await stage('programs', 'foreign programs that tests use', foreignPrograms)
  await stage('check', 'types, lint, format, unused code', async () => {
    for (const name of ['types', 'lint', 'format', 'unused']) await check(`check:${name}`)
  })
  await stage('tidy', 'the repository checks itself', () => mocha({ name: 'tidy', files: 'test/*.test.ts' }))
  for (const { name, coverage } of MOCHA_STAGES) {
    const files = `test/${name}/**/*.test.ts`
    if (hasTests(name)) await stage(name, files, () => mocha({ name, files, coverage }))
  }
  await stage('coverage', 'of core/, by the unit, property, contract and simulator tests', async () => {
    const words = [
      join('node_modules', 'c8', 'bin', 'c8.js'),
      'report',
      '--temp-directory',
      join(coverageDirectory, 'v8'),
      '--include',
      'core/**',
      // Interfaces only: no line of them runs.
      '--exclude',
      'core/ports/**',
      '--exclude',
      'core/mirror/messages.ts',
      '--all',
      '--src',
      'core',
      '--reporter',
      'text',
    ]
    if (existsSync(join(coverageDirectory, 'v8'))) await run(process.execPath, words)
  })
} finally {
  rmSync(coverageDirectory, { recursive: true, force: true })
}

console.log(`\n${((performance.now() - startedAt) / 1000).toFixed(0)} s in all`)
console.log(skipped.length === 0 ? 'nothing was skipped' : `skipped, ${skipped.length}:`)
for (const what of skipped) console.log(`  ${what}`)
console.log(`${totals.passed} passed, ${totals.failed} failed`)
process.exit(totals.failed === 0 ? 0 : 1)
