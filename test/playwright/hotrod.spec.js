const { test, expect } = require('@playwright/test');

// The page takes these from the web, which tests do without.
test.beforeEach(async ({ page }) => {
  await page.route('https://cdn.jsdelivr.net/npm/jquery@3.7.0/**', (route) => route.fulfill({ path: require.resolve('jquery/dist/jquery.min.js') }));
  await page.route('https://maxcdn.bootstrapcdn.com/**', (route) => route.abort());
});

test('a car comes to the customer', async ({ page }) => {
  await page.goto('/');
  await page.getByText("Rachel's Floral Designs").click();
  await expect(page.locator('#hotrod-log')).toContainText(/HotROD T7\d+C arriving in \d+min/, { timeout: 15_000 });
});
