/** Writes docs/operating/errors.md from core/errors.ts: `npx tsx scripts/error-page.mjs`. A test compares them. */
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { ERRORS } from '../core/errors.ts'

const head = `# Error codes

Every failure that XOSAN reports carries one of these codes: in the logs, in the answers of \`xosan ... --json\`,
and in what the entry scripts tell xapi. Words in braces are filled in. Made from \`core/errors.ts\` by
\`npx tsx scripts/error-page.mjs\`.
`

const entries = Object.entries(ERRORS).map(
  ([code, { sentence, next, retriable }]) =>
    `### ${code}\n\n${sentence}\n\n${next}\n\nRetry: ${retriable ? 'may help.' : 'does not help.'}\n`
)
writeFileSync(
  fileURLToPath(new URL('../docs/operating/errors.md', import.meta.url)),
  [head, ...entries].join('\n')
)
