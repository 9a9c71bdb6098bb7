import tseslint from 'typescript-eslint'

/** What core/ may import: itself, and assertions. Decisions stay pure so that the simulator runs the real ones. */
const coreIsPure = {
  files: ['core/**/*.ts'],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: [
          {
            regex: '^(?!\\.{1,2}/|node:assert$)',
            message:
              'core/ imports only core/ and node:assert: what it needs from the world comes in as an event.',
          },
          {
            regex: '^(\\.\\./)+(datapath|volume|plugins|catalogue|cluster|daemon|cli|web|rpc|test|bench)/',
            message: 'core/ imports only core/ and node:assert.',
          },
        ],
      },
    ],
    'no-restricted-globals': [
      'error',
      ...[
        'process',
        'setTimeout',
        'setInterval',
        'setImmediate',
        'performance',
        'fetch',
        'crypto',
        'queueMicrotask',
      ].map(name => ({ name, message: 'core/ has no clock, no timers, no randomness and no process.' })),
    ],
    'no-restricted-properties': [
      'error',
      { object: 'Date', property: 'now', message: 'Time comes in as an event.' },
      { object: 'Math', property: 'random', message: 'Randomness comes in through the Random port.' },
    ],
  },
}

export default tseslint.config(
  { ignores: ['dist/', 'coverage/', 'node_modules/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      // Numbers in messages are what an operator reads.
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      // Interfaces that are asynchronous in one implementation are so in all.
      '@typescript-eslint/require-await': 'off',
      // The compiler's noUncheckedIndexedAccess makes a checked `!` after a bounds test the readable form.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      // `== null` asks for both kinds of nothing at once.
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-console': 'off',
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      // chai-less assertions and fast-check return values that a test does not need.
      '@typescript-eslint/no-unused-expressions': 'off',
    },
  },
  coreIsPure
)
