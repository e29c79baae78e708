const path = require('path');
const { test, expect } = require('@playwright/test');

const types = { '.css': 'text/css', '.js': 'text/javascript' };

// What the page takes from the web comes from the packages that the web has it from.
test.beforeEach(async ({ page }) => {
  const packaged = (file) => (route) => route.fulfill({ path: require.resolve(file), contentType: types[path.extname(file)], headers: { 'access-control-allow-origin': '*' } });
  await page.route('**/jquery.min.js', packaged('jquery/dist/jquery.min.js'));
  await page.route('**/bootstrap.min.css', packaged('bootstrap/dist/css/bootstrap.min.css'));
  await page.route('**/bootstrap.min.js', packaged('bootstrap/dist/js/bootstrap.min.js'));
});

test('a car comes to the customer', async ({ page }) => {
  await page.goto('/');
  await page.getByText("Rachel's Floral Designs").click();
  await expect(page.locator('#hotrod-log')).toContainText(/HotROD T7\d+C arriving in \d+min/, { timeout: 15_000 });
});
